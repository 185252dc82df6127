"""One command over a folder that holds everything odd about names, and the same command again."""

import json
import os
import pathlib

import pytest
import tiny_foley

from foley_jax import generate, sample
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
    "c$d$ e.m4v": "c$d$ e",
    "link/far.mp4": "far",
}


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
        made = tmp_path / f"made{pathlib.Path(name).suffix.lower()}"
        media_files.write(made, seconds=0.5, times_s=(), audio=False).rename(folder / name)
    (folder / "._a.mp4").write_bytes(b"\0\5\26\7")
    (folder / "notes.txt").touch()
    (folder / "broken.ts").write_bytes(b"no video")
    monkeypatch.chdir(folder)
    return folder


REMARK = "passed over: 1 hidden, 1 of another kind (.txt){out}, 1 link loop (./loop)\n"


def _stamps(out: pathlib.Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_sample_makes_each_once(folder, capsys):
    words = [".", "--model=../runs/ldm", "--cavp=../runs/cavp", "--steps=2", "--out=out"]
    assert sample.main(words) == 1
    seen = capsys.readouterr()
    assert REMARK.format(out="") in seen.err
    assert "8 of 9 videos done" in seen.out and seen.err.count("failed: ") == 1
    assert "failed: broken.ts: " in seen.err
    clips = json.loads(pathlib.Path("out/scores.json").read_text())["clips"]
    assert {entry["video"]: name for name, entry in clips.items()} == VIDEOS
    written = {f"{name}{kind}" for name in clips for kind in (".wav", ".png", ".mp4")}
    assert set(os.listdir("out")) == written | {"scores.json"}

    before = _stamps(pathlib.Path("out"))
    del before["out/scores.json"]
    assert sample.main(words) == 1
    seen = capsys.readouterr()
    assert REMARK.format(out=", 8 in the output folder") in seen.err
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
    assert REMARK.format(out=", 16 in the output folder") in capsys.readouterr().err
    after = _stamps(pathlib.Path("made"))
    assert {name: after[name] for name in clips} == {name: before[name] for name in clips}
