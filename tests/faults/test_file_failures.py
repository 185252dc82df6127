"""Preparation and evaluation tell every failed file in words and go on, whatever was raised."""

import errno
import json
import struct

import numpy as np
import pytest

from data_prep import clip_making, prepare, shard_jobs
from foley_jax.evaluation import feature_store
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.media import audio as audio_io
from foley_jax.media import specs
from foley_jax.media import video as video_io
from foley_jax.runtime import outputs
from tests.faults import raised
from tests.media import media_files

FORMAT = clip_making.Format(fps=4.0, size=16, sample_rate_hz=8000, clip_seconds=2.0)


@pytest.fixture
def header(tmp_path):
    """An mp4 whose header names no stream; and good ones beside it."""
    size = struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 512, b"isom")
    size += struct.pack(">I4sI4s", 116, b"moov", 108, b"mvhd") + bytes(100)
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "header.mp4").write_bytes(size)
    for name in ("a", "b"):
        media_files.write(folder / f"{name}.mp4", seconds=2.0)
    return folder / "header.mp4"


def test_a_header_without_streams_has_no_image(header):
    info = video_io.probe(header)
    assert (info.has_video, info.has_audio, info.duration_s) == (False, False, 0.0)
    with pytest.raises(video_io.MediaError, match="has no video stream"):
        video_io.read_frames(header, specs.VideoSpec(4.0, 16, 16))


def _here(jobs, run, **about):
    for job in jobs:
        run(job, {}, lambda task: None)


def _failures(shards):
    return [json.loads(line) for line in (shards / "failures.jsonl").read_text().splitlines()]


def test_preparation_names_a_header_alone(header, tmp_path):
    index = prepare.prepare(header.parent, tmp_path / "s", FORMAT, split="train", runner=_here)
    assert index.num_records("train") == 2
    (failure,) = _failures(tmp_path / "s")
    assert failure["reason"] == "no_video" and "has no video stream" in failure["detail"]


@pytest.mark.parametrize("kind", ["index", "ffmpeg", "memory", "encode"])
@pytest.mark.parametrize("stage", ["plan_source", "make_clip"])
def test_preparation_tells_every_class_in_words(kind, stage, header, tmp_path, monkeypatch):
    make_error, words = raised.RAISED[kind]
    real = getattr(clip_making, stage)

    def failing(folder, what, *args, **options):
        if "a.mp4" in (what if isinstance(what, str) else what.source):
            raise make_error()
        return real(folder, what, *args, **options)

    monkeypatch.setattr(clip_making, stage, failing)
    prepare.prepare(header.parent, tmp_path / "s", FORMAT, split="train", runner=_here)
    details = {one["file"]: one["detail"] for one in _failures(tmp_path / "s")}
    assert sorted(details) == ["a.mp4", "header.mp4"] and words in details["a.mp4"]


def test_preparation_ends_once_where_nothing_can_be_written(header, tmp_path, monkeypatch):
    """It did not: every clip of a full disk was a failure, and its shard counted as done."""
    shards = tmp_path / "s"

    def add(self, clip):
        raise OSError(errno.ENOSPC, "No space left on device")

    def check(folder):
        raise outputs.OutputError(f"cannot write into {folder}")

    monkeypatch.setattr(shard_jobs.records.ShardWriter, "add", add)
    monkeypatch.setattr(outputs, "check_writable", check)
    with pytest.raises(outputs.OutputError, match="cannot write into"):
        prepare.prepare(header.parent, shards, FORMAT, split="train", runner=_here)
    monkeypatch.undo()
    index = prepare.prepare(header.parent, shards, FORMAT, split="train", runner=_here)
    assert index.num_records("train") == 2


def test_preparation_says_in_one_line_that_a_folder_takes_nothing(header, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SystemExit, match="^error: .*(File exists|Not a directory)") as stopped:
        prepare.main([str(header.parent), str(tmp_path / "file" / "s"), "--workers=1"])
    assert "Errno" not in str(stopped.value) and "\n" not in str(stopped.value)


KINDS = pytest.mark.parametrize("kind", ["index", "ffmpeg", "memory", "encode", "bare"])


@pytest.fixture
def audio_clips(tmp_path):
    paths = {name: tmp_path / f"{name}.wav" for name in ("a", "bad", "c")}
    for path in paths.values():
        audio_io.write_wav(path, np.full(800, 0.1, np.float32), 8000)
    return paths


@KINDS
def test_features_of_the_other_files_are_computed(kind, audio_clips):
    make_error, words = raised.RAISED[kind]

    def read(path):
        if path.stem == "bad":
            raise make_error()
        return np.ones(4, np.float32)

    extraction = feature_store.Extraction("x", "key", read, lambda rows: {"sum": rows.sum(1)})
    found = feature_store.FeatureStore(None).extract(audio_clips, extraction, "test")
    assert sorted(found.items) == ["a", "c"] and words in found.unreadable["bad"]


@KINDS
def test_the_other_files_are_listened_to(kind, audio_clips, monkeypatch):
    make_error, words = raised.RAISED[kind]
    load = audio_io.load

    def failing(path, rate_hz):
        if path.stem == "bad":
            raise make_error()
        return load(path, rate_hz)

    monkeypatch.setattr(audio_io, "load", failing)
    found = rules_lib.listen_each(audio_clips, "test", 8000, len)
    assert found.items == {"a": 800, "c": 800} and words in found.unreadable["bad"]
