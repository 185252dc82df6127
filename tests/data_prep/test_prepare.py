"""Videos to shards: what goes in comes out, broken files are named, a kill costs nothing."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from array_record.python import array_record_module
import numpy as np
import pytest

from data_prep import clip_making, guarded_pool, prepare, shard_plan, spans
from foley_jax.data import records
from tests.media import media_files

FORMAT = clip_making.Format(fps=4.0, size=16, sample_rate_hz=16000, clip_seconds=2.0)


def read_clips(shards: pathlib.Path, split: str) -> list[records.Clip]:
    out = []
    for path in records.shard_paths(shards, split):
        reader = array_record_module.ArrayRecordReader(str(path))
        out += [records.decode(data) for data in reader.read_all()]
    return out


def read_failures(shards: pathlib.Path) -> dict[str, str]:
    lines = (shards / "failures.jsonl").read_text().splitlines()
    return {one["file"]: one["reason"] for one in map(json.loads, lines)}


def digests(shards: pathlib.Path) -> dict[str, str]:
    return {shard.file: shard.sha256 for shard in records.read_index(shards).shards}


@pytest.fixture
def videos(tmp_path) -> pathlib.Path:
    """Good, long, silent, soundless, cut-off, empty and short files, one with its truth."""
    folder = tmp_path / "videos"
    for name in ("train/deep", "test"):
        (folder / name).mkdir(parents=True)
    long = media_files.write(
        folder / "train/deep/long.mp4", seconds=5, times_s=(0.5, 2.75), rate_hz=44100
    )
    events = [{"time_s": 0.5, "material": "wood"}, {"time_s": 2.75, "material": "wood"}]
    long.with_suffix(".json").write_text(json.dumps({"labels": ["wood"], "events": events}))
    media_files.write(folder / "test/short.mkv", seconds=0.7, times_s=(0.3,))
    media_files.write(folder / "train/mute.mp4", audio=False)
    whole = media_files.write(folder / "train/cut.mp4").read_bytes()
    (folder / "train/cut.mp4").write_bytes(whole[:2000])
    (folder / "train/empty.mp4").write_bytes(b"")
    media_files.write(folder / "train/blink.mp4", seconds=0.3, times_s=())
    (folder / "train/notes.txt").write_text("no video")
    return folder


@pytest.mark.slow
def test_clips_and_failures(videos, tmp_path):
    shards = tmp_path / "shards"
    index = prepare.prepare(videos, shards, FORMAT)
    assert (index.num_records("train"), index.num_records("test")) == (3, 1)
    assert read_failures(shards) == {
        "train/blink.mp4": "too_short",
        "train/cut.mp4": "unreadable",
        "train/empty.mp4": "unreadable",
        "train/mute.mp4": "no_audio",
    }
    first, second, third = sorted(read_clips(shards, "train"), key=lambda clip: clip.id)
    assert [c.id for c in (first, second, third)] == [f"train/deep/long#{i}" for i in range(3)]
    assert [len(c.frames) for c in (first, second, third)] == [8, 8, 4]
    assert [len(c.audio) for c in (first, second, third)] == [32000, 32000, 16000]
    assert (second.start_s, second.end_s, second.labels) == (2.0, 4.0, ["wood"])
    assert second.events == [{"time_s": 0.75, "material": "wood"}]
    loud = np.flatnonzero(np.abs(second.audio.astype(float)) > 3000)[0] / 16000
    assert abs(loud - 0.75) < 0.003
    # the third frame of the second clip is what is on screen at 2.5 s: source frame 50
    assert abs(second.frames_THWC()[2].mean() - 200) < 3
    (short,) = read_clips(shards, "test")
    assert len(short.frames) == 3 and short.events is None
    assert len(short.audio) == 12000  # as long as its three frames


@pytest.mark.slow
def test_result_does_not_depend_on_the_number_of_workers(videos, tmp_path):
    prepare.prepare(videos, tmp_path / "one", FORMAT, clips_per_shard=2)
    prepare.prepare(videos, tmp_path / "two", FORMAT, clips_per_shard=2, workers=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert len(digests(tmp_path / "one")) == 3


@pytest.mark.slow
def test_finished_shards_are_kept_and_lost_ones_made_again(videos, tmp_path):
    shards = tmp_path / "shards"
    prepare.prepare(videos, shards, FORMAT, clips_per_shard=2)
    before = digests(shards)
    kept = (shards / "train-00001.arrayrecord").stat().st_mtime_ns
    (shards / "train-00000.arrayrecord").unlink()
    prepare.prepare(videos, shards, FORMAT, clips_per_shard=2)
    assert digests(shards) == before
    assert (shards / "train-00001.arrayrecord").stat().st_mtime_ns == kept
    assert (shards / "train-00000.arrayrecord").is_file()


@pytest.mark.slow
def test_kill_and_start_again_gives_the_same_set(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(5):
        media_files.write(videos / f"v{i}.mp4", times_s=(0.1 * i,))
    prepare.prepare(videos, tmp_path / "whole", FORMAT, split="train", clips_per_shard=1)
    shards = tmp_path / "killed"
    command = [sys.executable, "-m", "data_prep.prepare", str(videos), str(shards), "--size=16"]
    command += ["--clip_seconds=2", "--split=train", "--clips_per_shard=1", "--workers=1"]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(shards.glob(".done-*"))) < 2:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (shards / "index.json").exists()
    assert len(list(shards.glob(".done-*"))) < 5
    prepare.prepare(videos, shards, FORMAT, split="train", clips_per_shard=1)
    assert digests(shards) == digests(tmp_path / "whole")
    assert not list(shards.glob("*.part"))


@pytest.mark.slow
def test_other_settings_are_refused(videos, tmp_path):
    prepare.prepare(videos, tmp_path / "shards", FORMAT)
    other = clip_making.Format(fps=4.0, size=32, sample_rate_hz=16000, clip_seconds=2.0)
    with pytest.raises(ValueError, match="size was 16, now 32"):
        prepare.prepare(videos, tmp_path / "shards", other)


def test_letterbox_shows_the_whole_image_and_the_index_says_so(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    media_files.write(videos / "wide.mp4")  # 48x64
    command = [str(videos), str(tmp_path / "s"), "--fps=10", "--size=32", "--split=train"]
    prepare.main([*command, "--fit=letterbox", "--no-antialias", "--workers=1"])
    index = records.read_index(tmp_path / "s")
    assert (index.fps, index.fit, index.antialias) == (10.0, "letterbox", False)
    (clip,) = read_clips(tmp_path / "s", "train")
    last = clip.frames_THWC()[-1].astype(int)  # grey 152 between bars
    assert np.abs(last[4:28] - 152).max() < 8 and last[[0, 1, 30, 31]].max() < 8


def test_sets_begun_before_images_could_be_fitted_go_on(tmp_path):
    videos, shards = tmp_path / "videos", tmp_path / "s"
    videos.mkdir()
    media_files.write(videos / "a.mp4")
    prepare.prepare(videos, shards, FORMAT, split="train")
    plan = json.loads((shards / shard_plan.PLAN_NAME).read_text())
    for name in ("fit", "antialias"):
        del plan["settings"][name]
    (shards / shard_plan.PLAN_NAME).write_text(json.dumps(plan))
    assert prepare.prepare(videos, shards, FORMAT, split="train").num_records("train") == 1
    boxed = dataclasses.replace(FORMAT, fit="letterbox")
    with pytest.raises(ValueError, match="fit was stretch, now letterbox"):
        prepare.prepare(videos, shards, boxed, split="train")


def test_nothing_usable_is_one_clear_error(tmp_path):
    videos = tmp_path / "videos"
    with pytest.raises(ValueError, match="no such folder"):
        prepare.prepare(videos, tmp_path / "s", FORMAT)
    videos.mkdir()
    with pytest.raises(ValueError, match="holds no video file"):
        prepare.prepare(videos, tmp_path / "s", FORMAT)
    media_files.write(videos / "mute.mp4", audio=False)
    with pytest.raises(ValueError, match="not one usable clip.*has no audio track"):
        prepare.prepare(videos, tmp_path / "s", FORMAT)


def test_wrong_truth_file_is_a_failure_with_a_reason(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("good", "bad"):
        media_files.write(videos / f"{name}.mp4")
    (videos / "bad.json").write_text('{"events": [{"when": 3}]}')
    index = prepare.prepare(videos, tmp_path / "s", FORMAT, split="train")
    assert index.num_records("train") == 1
    assert read_failures(tmp_path / "s") == {"bad.mp4": "bad_truth"}


def run_with_trouble(job: list[str], skip: dict[int, str], say) -> list[str]:
    """A guarded job whose tasks do what they are told to."""
    out = []
    for task, what in enumerate(job):
        if task in skip:
            out.append(skip[task])
            continue
        say(task)
        if what == "hang":
            time.sleep(60)
        elif what == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif what == "raise":
            raise KeyError("out of the ordinary")
        out.append(what)
    return out


@pytest.mark.slow
def test_hanging_and_crashing_tasks_cost_only_themselves():
    jobs = [["a", "hang", "b"], ["die", "c"]]
    results = guarded_pool.run_jobs(
        jobs, run_with_trouble, workers=2, task_limit_s=0.3, on_task=lambda *_: None
    )
    results = {tuple(job): result for job, result in results}
    assert results == {
        ("a", "hang", "b"): ["a", "timeout", "b"],
        ("die", "c"): ["crashed", "c"],
    }


def test_failing_job_shows_its_traceback():
    with pytest.raises(RuntimeError, match="out of the ordinary"):
        list(
            guarded_pool.run_jobs(
                [["raise"]], run_with_trouble, workers=1, task_limit_s=5, on_task=lambda *_: None
            )
        )


def test_spans_cut_and_split():
    cuts = spans.cut("a/b.mp4", "train", 25.3, 10)
    assert [(s.start_s, s.end_s) for s in cuts] == [(0, 10), (10, 20), (20, 25.3)]
    assert [s.clip_id for s in cuts] == ["a/b#0", "a/b#1", "a/b#2"]
    assert [(s.start_s, s.end_s) for s in spans.cut("a", "train", 10.09, 10)] == [(0, 10)]
    assert spans.cut("a", "train", 0.4, 10) == []
    assert spans.split_of("x/test/y/a.mp4", "auto") == "test"
    assert spans.split_of("test_hard/a.mp4", "auto") == "test_hard"
    assert spans.split_of("test.mp4", "val") == "val"
    names = [spans.split_of(f"clip{i}.mp4", "auto") for i in range(1000)]
    assert 60 < names.count("test") < 140 and names.count("train") + names.count("test") == 1000
