"""Killed at any time and started again, here or on Beam: the same shards, no clip lost or twice."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from data_prep import beam, prepare
from tests.data_prep import shard_sets

COMMANDS = {"prepare": "data_prep.prepare", "beam": "data_prep.beam"}
NUM_CLIPS = 9  # of shard_sets.write_videos
# what must be there when a run is killed, how often, and whether its workers are killed with it
MOMENTS = ((".listing.json", 1, False), (".done-*", 1, True), (".done-*", 3, False))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path]:
    """Videos, and their shards made in one go."""
    folder = tmp_path_factory.mktemp("restarts")
    videos = shard_sets.write_videos(folder / "videos")
    shards = folder / "whole"
    prepare.prepare(
        videos, shards, shard_sets.FORMAT, clips_per_shard=2, runner=shard_sets.run_in_process
    )
    return videos, shards


def start(module: str, videos: pathlib.Path, shards: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "-m", module, str(videos), str(shards), *shard_sets.FLAGS]
    return subprocess.Popen(
        [*command, "--workers=1"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def kill_when(
    child: subprocess.Popen, shards: pathlib.Path, pattern: str, count: int, workers: bool = False
) -> None:
    deadline = time.monotonic() + 60
    while len(list(shards.glob(pattern))) < count:
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    (os.killpg if workers else os.kill)(child.pid, signal.SIGKILL)
    child.wait()
    child.stderr.close()


@pytest.mark.parametrize("way", sorted(COMMANDS))
def test_three_kills_change_nothing(whole, tmp_path, way):
    if way == "beam":
        pytest.importorskip("apache_beam")
    videos, expected = whole
    shards = tmp_path / "shards"
    for moment in MOMENTS:
        kill_when(start(COMMANDS[way], videos, shards), shards, *moment)
        assert not (shards / "index.json").exists()
    last = start(COMMANDS[way], videos, shards)
    _, errors = last.communicate(timeout=60)
    assert last.returncode == 0, errors
    assert shard_sets.digests(shards) == shard_sets.digests(expected)
    failures = [shard_sets.read_failures(folder) for folder in (shards, expected)]
    assert failures[0] == failures[1]
    ids = [one for split in ("train", "test") for one in shard_sets.read_ids(shards, split)]
    assert len(ids) == len(set(ids)) == NUM_CLIPS
    left = {path.name for path in shards.glob(".*") if not path.name.startswith(".done-")}
    assert left == {".plan.json", ".plan.jsonl", ".listing.jsonl"}


def test_either_way_goes_on_with_what_the_other_began(whole, tmp_path):
    pytest.importorskip("apache_beam")
    videos, expected = whole
    shards = tmp_path / "shards"
    kill_when(start(COMMANDS["prepare"], videos, shards), shards, ".done-*", 2)
    kept = {path: path.stat().st_mtime_ns for path in shards.glob(".done-*")}
    flags = beam.local_flags(["--direct_num_workers=2"], workers=1)
    assert "--direct_num_workers=1" not in flags
    beam.main([str(videos), str(shards), *shard_sets.FLAGS, "--", *flags])
    assert shard_sets.digests(shards) == shard_sets.digests(expected)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_flags_for_a_cluster_are_left_alone():
    flags = ["--runner=DataflowRunner", "--region=us-central1"]
    assert beam.local_flags(flags, workers=3) == flags
    assert beam.local_flags(["--runner", "SparkRunner"], 3) == ["--runner", "SparkRunner"]
    ours = ["--direct_running_mode=multi_threading", "--direct_num_workers=3"]
    assert beam.local_flags(["--runner=DirectRunner"], 3) == ["--runner=DirectRunner", *ours]
    assert beam.local_flags([], 3) == ["--runner=DirectRunner", *ours]


@dataclasses.dataclass(frozen=True)
class Noted:
    """A job that leaves a file with what became of its tasks."""

    folder: pathlib.Path
    tasks: tuple[str, ...]

    @property
    def done_name(self) -> str:
        return "noted"


def note(job: Noted, skip: dict[int, str], say) -> None:
    out = []
    for task, what in enumerate(job.tasks):
        if task not in skip:
            say(task)
            if what == "hang":
                time.sleep(60)
        out.append(skip.get(task, what))
    (job.folder / job.done_name).write_text(" ".join(out))


def test_element_of_a_pipeline_does_not_hang(tmp_path):
    job = Noted(tmp_path, ("a", "hang", "b"))
    assert beam._run_job(job, run=note, task_limit_s=0.3) == "noted"
    assert (tmp_path / "noted").read_text() == "a timeout b"


def note_and_hang(job: Noted, skip: dict[int, str], say) -> None:
    note(job, skip, say)
    say(len(job.tasks))
    time.sleep(60)


def test_what_cannot_be_skipped_stops_the_work(tmp_path):
    with pytest.raises(RuntimeError, match="failed:\ntimeout"):
        beam._run_job(Noted(tmp_path, ("a",)), run=note_and_hang, task_limit_s=0.3)


ORPHAN = """
import sys, time
from data_prep import guarded_pool

def run(job, skip, say):
    say(0)
    with open(sys.argv[1], "w") as file:
        file.write(str(__import__("os").getpid()))
    time.sleep(60)

if __name__ == "__main__":
    guarded_pool.ORPHAN_S = 0.5
    list(guarded_pool.run_jobs([0], run, workers=1, task_limit_s=1.0, on_task=lambda *_: None))
"""


def test_process_stuck_in_a_task_does_not_outlive_a_killed_parent(tmp_path):
    script, told = tmp_path / "orphan.py", tmp_path / "pid"
    script.write_text(ORPHAN)
    paths = {**os.environ, "PYTHONPATH": str(pathlib.Path(prepare.__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, str(script), str(told)], env=paths)
    deadline = time.monotonic() + 30
    while not (told.exists() and told.read_text()):
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    child, deadline = int(told.read_text()), time.monotonic() + 10
    while pathlib.Path(f"/proc/{child}/status").exists():
        if "Z" in pathlib.Path(f"/proc/{child}/stat").read_text().split()[2]:
            return
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.05)
