"""One command over a folder that holds everything odd at once, and the same command again."""

from fractions import Fraction
import json
import os
import pathlib

import av
import numpy as np
import pytest
import tiny_foley

from foley_jax import generate, sample
from tests.faults import odd_media
from tests.media import media_files

DASH = "--0PQM4-hqg_000030"
LATIN_1 = os.fsdecode(b"caf\xe9")
VIDEOS = {  # file -> output name
    "a.mov": "a",
    "a.mp4": "a_3",
    "a_2.mp4": "a_2",
    "B.MKV": "B",
    f"{DASH}.mp4": DASH,
    f"{LATIN_1}.mp4": LATIN_1,
    "11:30.mp4": "11:30",
    "c$d$ e.m4v": "c$d$ e",
    "link/far.mp4": "far",
    "AVCHD.MTS": "AVCHD",
    "hdr.mp4": "hdr",
    "phone.mov": "phone",
    "trimmed.mp4": "trimmed",
    "wide.mp4": "wide",
}


def _make(path: pathlib.Path) -> None:
    """Returns what its name says, half a second."""
    grey = media_files.grey_frames(5, 48, 64)
    if path.name in ("hdr.mp4", "phone.mov"):
        tags = {} if path.stem == "hdr" else {"tags": (1, 1, 1), "pix_fmt": "yuv420p"}
        odd_media.hevc(path, (126, 128, 128) if tags else (512, 512, 512), num_frames=5, **tags)
    elif path.name == "trimmed.mp4":
        odd_media.h264(path, media_files.grey_frames(10, 48, 64))
        odd_media.trim(path, 0.5, 0.5)
    elif path.name == "wide.mp4":
        odd_media.h264(path, grey, aspect=Fraction(64, 45))
    elif path.suffix == ".MTS":
        odd_media.h264(path, grey)
    else:
        media_files.write(path, seconds=0.5, times_s=(), audio=False)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
    """Videos of half a second under odd names, and what is none among them."""
    tiny_foley.save_runs(tmp_path / "runs")
    folder, far = tmp_path / "v", tmp_path / "real"
    folder.mkdir()
    far.mkdir()
    (folder / "link").symlink_to(far)
    (folder / "loop").symlink_to(folder)
    for name in VIDEOS:
        made = tmp_path / "made" / (name if name.isascii() and ":" not in name else "other.mp4")
        made.parent.mkdir(parents=True, exist_ok=True)
        _make(made)
        made.rename(folder / name)
    (folder / "._a.mp4").write_bytes(b"\0\5\26\7")
    (folder / "notes.txt").touch()
    (folder / "broken.ts").write_bytes(b"no video")
    monkeypatch.chdir(folder)
    return folder


REMARK = "passed over: 1 hidden, 1 of another kind (.txt){out}, 1 link loop (./loop)\n"


def _stamps(out: pathlib.Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def _check_images(out: pathlib.Path) -> None:
    """Each shows what its input shows, in a form that players take."""
    for name in ("hdr", "phone"):
        assert odd_media.sample_entry(out / f"{name}.mp4") == "hvc1"
    with av.open(str(out / "hdr.mp4")) as opened:
        context = opened.streams.video[0].codec_context
        tags = context.color_trc, context.color_primaries, context.colorspace
    assert tags == (odd_media.PQ, odd_media.BT2020, odd_media.BT2020)
    with av.open(str(out / "wide.mp4")) as opened:
        assert opened.streams.video[0].sample_aspect_ratio == Fraction(64, 45)
    for video, name in VIDEOS.items():
        times_s, greys = odd_media.shown(pathlib.Path(video))
        copied_s, copied = odd_media.shown(out / f"{name}.mp4")
        np.testing.assert_allclose(copied_s, times_s, atol=0.002, err_msg=video)
        np.testing.assert_allclose(copied, greys, atol=2, err_msg=video)
    assert odd_media.shown(out / "trimmed.mp4")[1][0] == pytest.approx(20, abs=2)


@pytest.mark.slow
def test_sample_makes_each_once(folder, capsys):
    words = [".", "--model=../runs/ldm", "--cavp=../runs/cavp", "--steps=2", "--out=out"]
    assert sample.main(words) == 1
    seen = capsys.readouterr()
    assert REMARK.format(out="") in seen.err
    assert f"{len(VIDEOS)} of {len(VIDEOS) + 1} videos done" in seen.out
    assert seen.err.count("failed: ") == 1
    assert "failed: broken.ts: " in seen.err
    clips = json.loads(pathlib.Path("out/scores.json").read_text())["clips"]
    assert {entry["video"]: name for name, entry in clips.items()} == VIDEOS
    written = {f"{name}{kind}" for name in clips for kind in (".wav", ".png", ".mp4")}
    assert set(os.listdir("out")) == written | {"scores.json"}
    _check_images(pathlib.Path("out"))

    before = _stamps(pathlib.Path("out"))
    del before["out/scores.json"]
    assert sample.main(words) == 1
    seen = capsys.readouterr()
    assert REMARK.format(out=f", {len(VIDEOS)} in the output folder") in seen.err
    after = _stamps(pathlib.Path("out"))
    del after["out/scores.json"]
    assert after == before
    # by name, from elsewhere: all known already
    assert sample.main([*map(str, VIDEOS), *words[1:]]) == 0
    assert {k: v for k, v in _stamps(pathlib.Path("out")).items() if k in before} == before


@pytest.mark.slow
def test_generate_makes_each_once(folder, capsys):
    words = [".", "--model=../runs/ldm", "--cavp=../runs/cavp", "--steps=2", "--out=made"]
    words += ["--samples=2", "--videos"]
    assert generate.main(words) == 1
    (broken,) = json.loads(pathlib.Path("made/failures.json").read_text())
    assert broken == "broken.ts"
    before = _stamps(pathlib.Path("made"))
    clips = [name for name in before if name.endswith((".wav", ".mp4"))]
    assert len(clips) == len(VIDEOS) * 2 * 2
    assert {pathlib.Path(name).stem for name in clips} == set(VIDEOS.values())
    capsys.readouterr()
    assert generate.main(words) == 1
    assert REMARK.format(out=f", {2 * len(VIDEOS)} in the output folder") in capsys.readouterr().err
    after = _stamps(pathlib.Path("made"))
    assert {name: after[name] for name in clips} == {name: before[name] for name in clips}
