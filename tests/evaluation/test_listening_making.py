"""A test's folder: blind in every byte, equally loud, paired by name, and nothing half made."""

import json
import re

import av
import numpy as np
import pytest

from foley_jax.evaluation.listening import __main__ as command
from foley_jax.evaluation.listening import answer_key, answers, making, stimuli
from foley_jax.media import audio as audio_io
from foley_jax.media import loudness
from tests.media import media_files

RATE = 16000
SECRETS = ("Zebrafoley", "Quokkanet", "doorslam", "glassbreak", "Hidden Title")


def _wav(path, level, seconds=1.0, hz=440.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * RATE)) / RATE
    audio_io.write_wav(path, (level * np.sin(2 * np.pi * hz * time)).astype(np.float32), RATE)


@pytest.fixture
def folders(tmp_path):
    for system, level, seconds in (("Zebrafoley", 0.5, 1.2), ("Quokkanet", 0.02, 1.0)):
        for item in ("doorslam", "glassbreak"):
            _wav(tmp_path / system / f"{item}.wav", level, seconds)
    return tmp_path


def _make(folder, *more):
    words = ["make", f"--system=Zebrafoley={folder / 'Zebrafoley'}"]
    words += [f"--system=Quokkanet={folder / 'Quokkanet'}", f"--out={folder / 'test'}", *more]
    return command.main([*words, "--orders=4"])


def _bytes(folder):
    """All that somebody who has a folder can see: names and contents."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"\n".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)


def test_no_byte_of_the_page_names_a_system_or_an_item(folders, capsys):
    assert _make(folders, "--rate=16000") == 0
    seen = _bytes(folders / "test").lower()
    for secret in SECRETS:
        assert secret.lower().encode() not in seen
    key = (folders / "test.key.json").read_text()
    assert all(secret in key for secret in SECRETS[:4])
    names = [path.name for path in (folders / "test" / "media").iterdir()]
    # 4 clips and 3 attention checks
    assert len(names) == 7 and all(re.fullmatch(r"[0-9a-f]{16}\.wav", name) for name in names)
    assert len({path.stat().st_mtime for path in (folders / "test").rglob("*")}) == 1
    assert "key (not for listeners)" in capsys.readouterr().out


def test_clips_of_an_item_are_equally_loud_and_long(folders):
    assert _make(folders, "--rate=16000", "--lufs=-20") == 0
    key = json.loads((folders / "test.key.json").read_text())
    for name, clip in key["clips"].items():
        audio_L = audio_io.load(folders / "test" / "media" / name, RATE)
        assert len(audio_L) == RATE
        assert loudness.integrated(audio_L, RATE) == pytest.approx(-20, abs=0.2)
        assert (clip["gain_db"] > 0) == (clip["system"] == "Quokkanet")


def test_a_peak_lowers_all_clips_of_its_item_and_silence_stays():
    click = np.zeros(RATE, np.float32)
    click[100:140] = 1.0
    tone = (0.1 * np.sin(np.arange(RATE) / 3)).astype(np.float32)
    clips = {"click": click, "tone": tone, "none": np.zeros(RATE, np.float32)}
    made, facts = stimuli.equally_loud(clips, stimuli.Settings(RATE, -10.0))
    loud = [loudness.integrated(made[name], RATE) for name in ("click", "tone")]
    assert loud[0] == pytest.approx(loud[1], abs=0.01) and loud[0] < -10.5
    assert max(np.abs(audio).max() for audio in made.values()) <= 1.0
    assert facts["none"]["gain_db"] is None and not made["none"].any()


def test_videos_are_encoded_alike_and_their_tags_are_gone(folders):
    """One shared video, whose tags name what it must not."""
    for number, item in enumerate(("doorslam", "glassbreak")):
        plain = media_files.write(folders / f"{number}.mp4", seconds=1.5)
        (folders / "videos").mkdir(exist_ok=True)
        with (
            av.open(str(plain)) as source,
            av.open(str(folders / f"videos/{item}.mp4"), "w") as out,
        ):
            out.metadata["title"], out.metadata["comment"] = "Hidden Title", "Zebrafoley"
            stream = source.streams.video[0]
            copy = out.add_stream_from_template(stream)
            copy.metadata["handler_name"] = "Quokkanet"
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    out.mux(packet)
        assert b"Quokkanet" in (folders / f"videos/{item}.mp4").read_bytes()
    assert _make(folders, f"--videos={folders / 'videos'}") == 0
    seen = _bytes(folders / "test").lower()
    assert not any(secret.lower().encode() in seen for secret in SECRETS)
    clips = sorted((folders / "test" / "media").glob("*.mp4"))
    assert len(clips) == 4
    with av.open(str(clips[0])) as found:
        assert found.streams.video and found.streams.audio
        assert found.duration / av.time_base == pytest.approx(1.0, abs=0.08)
    kinds = {q["kind"] for q in json.loads((folders / "test/test.json").read_text())["questions"]}
    assert kinds == {"preference", "quality", "sync", "attention"}


def test_recordings_with_video_are_shown_with_every_system(folders):
    for item in ("doorslam", "glassbreak"):
        (folders / "real").mkdir(exist_ok=True)
        media_files.write(folders / f"real/{item}.mp4", seconds=1.0, times_s=(0.25, 0.6))
    assert _make(folders, f"--real={folders / 'real'}", "--per_listener=9") == 0
    key = answer_key.load(folders / "test.key.json")
    assert key.real == "real" and key.systems[-1] == "real"
    assert {q.kind for q in key.questions.values()} == {
        *("real", "preference", "quality", "sync", "attention")
    }
    assert key.test == answers.Test.of(json.loads((folders / "test/test.json").read_text()))
    assert len(list((folders / "test/media").glob("*.mp4"))) == 6


def test_what_one_system_lacks_is_left_out_by_name(folders, capsys):
    _wav(folders / "Zebrafoley/extra.wav", 0.5)
    (folders / "Quokkanet/doorslam.wav").write_bytes(b"broken")
    assert _make(folders, "--rate=16000") == 0
    said = capsys.readouterr().err
    assert "Zebrafoley: 1 items left out" in said and "extra" in said
    assert "doorslam left out" in said
    assert len(list((folders / "test/media").iterdir())) == 2 + 3


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--ask=real"], "give --real=DIR"),
        (["--ask=sync"], "give --videos=DIR"),
        (["--ask=taste"], "expected some of real"),
        (["--key=test/key.json"], "outside it"),
        (["--checks=6"], "expected 0 to 5"),
        (["--rate=12345"], "a rate of 12345 Hz"),
        (["--lufs=3"], "below 0"),
        (["--system=real=Zebrafoley"], "another name"),
        (["--system=Zebrafoley=Quokkanet"], "several folders"),
        (["--system=more=nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_made_is_refused_and_leaves_nothing(
    folders, monkeypatch, capsys, more, complaint
):
    monkeypatch.chdir(folders)
    assert _make(folders, *more) == 1
    assert complaint in capsys.readouterr().err
    assert not list((folders / "test").rglob("*.*"))


def test_a_key_is_never_overwritten(folders, capsys):
    assert _make(folders, "--rate=16000") == 0
    before = (folders / "test.key.json").read_text()
    assert _make(folders, "--rate=16000") == 1
    assert "there already" in capsys.readouterr().err
    assert (folders / "test.key.json").read_text() == before


def test_checks_have_the_beeps_that_the_key_expects(folders):
    assert _make(folders, "--rate=16000", "--checks=5") == 0
    key = answer_key.load(folders / "test.key.json")
    checks = [q for q in key.questions.values() if q.kind == "attention"]
    assert sorted(q.expected for q in checks) == [1, 2, 3, 4, 5]
    for check in checks:
        loud = np.abs(audio_io.load(folders / "test/media" / check.clips[0], RATE)) > 0.01
        pieces = loud[: len(loud) // 800 * 800].reshape(-1, 800).any(1).astype(int)
        assert (np.diff(pieces, prepend=0) == 1).sum() == check.expected


def test_a_failure_while_writing_leaves_no_page(folders, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(making.listening_page, "write", fail)
    assert _make(folders, "--rate=16000") == 1
    assert not list((folders / "test").rglob("*.*")) and not (folders / "test.key.json").exists()
