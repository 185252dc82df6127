"""Every failure is told in words, whatever was raised, and costs nothing but its own file."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from foley_jax.inference import jobs
from foley_jax.media import audio as audio_io
from foley_jax.media import container
from foley_jax.runtime import outputs, reasons
from tests.faults import raised


@pytest.mark.parametrize("kind", raised.RAISED)
def test_every_class_is_told_in_one_line(kind):
    make, words = raised.RAISED[kind]
    told = reasons.of(make())
    assert words in told and "\n" not in told and "Errno" not in told
    assert ("please report" in told) == told.startswith("unexpected")


def test_what_says_itself_is_left_as_it_is():
    for error in (
        ValueError("no video stream"),
        container.MediaError("empty", "a.mp4: no video"),
        FileNotFoundError("no video files found in a"),
        outputs.OutputError("cannot write"),
    ):
        assert reasons.of(error) == str(error)


def test_unexpected_errors_say_where(capsys, monkeypatch):
    def told(function, *args):
        with pytest.raises(Exception) as caught:
            function(*args)
        return reasons.of(caught.value)

    # a plain ValueError of a library was not written for who reads the list of failures
    where = told(audio_io.resample, np.zeros((4, 4, 4), np.float32), 8000, 16000)
    assert where.startswith("unexpected ValueError") and " in foley_jax.media.audio, line" in where
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(reasons.SWITCH, "1")
    reasons.of(raised.index())
    assert "Traceback" in (shown := capsys.readouterr().err) and "in index" in shown


class Clip:
    scores: dict = {}

    def __init__(self, name):
        self.name = name

    def save(self, path):
        Path(path).write_text(self.name)

    plot = save


class Job:
    """Videos that fail at a stage, with an error of some class, together or alone."""

    def __init__(self, stage, make_error, alone=True):
        self.stage, self.make_error, self.alone = stage, make_error, alone
        self.made = []

    def _maybe(self, stage, sources):
        if stage == self.stage and "bad" in sources and (self.alone or len(sources) > 1):
            raise self.make_error()

    def read(self, video):
        self._maybe("read", [video.stem])
        return video.stem

    def make(self, sources):
        self._maybe("make", sources)
        self.made.append(list(sources))
        return sources

    def finish(self, made):
        self._maybe("finish", made)
        clips = [Clip(name) for name in made]
        for clip in clips:
            if self.stage == "save" and clip.name == "bad":
                clip.save = lambda path: self._maybe("save", ["bad"])
        return [[clip] for clip in clips]

    def settings(self):
        return {}


def _run(job, out, group=4):
    videos = [Path(f"{name}.mp4") for name in ("a", "b", "bad", "c")]
    return jobs.Batch(job, videos, jobs.Folder(out, {}), group=group).run()


@pytest.mark.parametrize("kind", ["index", "ffmpeg", "encode", "memory", "device", "key", "bare"])
@pytest.mark.parametrize("stage", ["read", "make", "finish", "save"])
def test_one_file_fails_alone_at_every_stage(stage, kind, tmp_path):
    make_error, words = raised.RAISED[kind]
    failures = _run(Job(stage, make_error), tmp_path)
    assert list(failures) == ["bad.mp4"] and words in failures["bad.mp4"]
    assert sorted(path.stem for path in tmp_path.glob("*.wav")) == ["a", "b", "c"]
    assert sorted(json.loads((tmp_path / "scores.json").read_text())["clips"]) == ["a", "b", "c"]


@pytest.mark.parametrize("stage", ["make", "finish"])
def test_a_group_that_fails_as_a_whole_is_made_one_by_one(stage, tmp_path):
    job = Job(stage, raised.RAISED["device"][0], alone=False)
    assert _run(job, tmp_path) == {}
    assert job.made[-4:] == [["a"], ["b"], ["bad"], ["c"]]
    assert len(list(tmp_path.glob("*.wav"))) == 4


def test_whoever_stops_the_batch_stops_it(tmp_path):
    for stop in (KeyboardInterrupt, SystemExit):
        with pytest.raises(stop):
            _run(Job("make", stop), tmp_path / stop.__name__)


@pytest.fixture
def full_disk(monkeypatch):
    """Files of clips cannot be written any more after the first two; the rest of the disk can."""
    written = []

    def check(folder):
        if len(written) >= 2:
            raise outputs.OutputError(f"cannot write into {folder} (No space left on device)")

    def save(self, path):
        if path.suffix == ".wav" and len(written) >= 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        if path.suffix == ".wav":
            written.append(path)
        path.write_text(self.name)

    monkeypatch.setattr(outputs, "check_writable", check)
    monkeypatch.setattr(Clip, "save", save)
    return written


def test_a_full_disk_ends_the_batch_once_and_keeps_what_is_there(full_disk, tmp_path, monkeypatch):
    job = Job("", None)
    with pytest.raises(outputs.OutputError, match="cannot write into .*No space left"):
        _run(job, tmp_path, group=1)
    assert len(job.made) < 4 + 1  # nothing is made for nothing for long
    kept = json.loads((tmp_path / "scores.json").read_text())["clips"]
    assert sorted(kept) == ["a", "b"]
    full_disk.clear()
    job = Job("", None)
    assert _run(job, tmp_path, group=1) == {} and job.made == [["bad"], ["c"]]


def test_a_folder_that_takes_nothing_is_named_before_anything_is_made(tmp_path):
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        with pytest.raises(outputs.OutputError, match=f"cannot write into {folder} "):
            jobs.Folder(folder, {})
    outputs.check_writable(tmp_path / "new" / "one")
    assert os.listdir(tmp_path / "new" / "one") == []
