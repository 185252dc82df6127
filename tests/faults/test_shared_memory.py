"""Loader processes where /dev/shm is small: the run goes on, or ends in seconds and says why."""

import collections
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from foley_jax.data import pipeline, shared_memory
from tests import mounts

ROOT = pathlib.Path(__file__).parents[2]
Usage = collections.namedtuple("Usage", "total used free")


class Million:
    """A megabyte of the record's number."""

    def __call__(self, source, index, rng):
        return {"x": np.full(1 << 20, index, np.uint8)}


def batches(workers: int):
    return pipeline.make_iterator(
        range(20),
        Million(),
        global_batch=4,
        seed=0,
        position=0,
        process_index=0,
        process_count=1,
        read_threads=1,
        workers=workers,
    )


@pytest.mark.parametrize(("free_mb", "fit"), [(64, 4), (40, 3), (13, 1), (1, 0)])
def test_as_many_processes_as_fit(monkeypatch, capsys, free_mb, fit):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, free_mb << 20))
    example = {"x": np.zeros(1 << 20, np.uint8)}
    assert shared_memory.workers_that_fit(4, example, 4) == fit
    error = capsys.readouterr().err
    if fit == 4:
        assert not error
    else:
        assert error.count("\n") == 1 and "/dev/shm has" in error
        assert f"going on with {fit}" in error and "--config.data.workers=0" in error


def test_no_such_folder_is_no_bound(monkeypatch):
    monkeypatch.setattr(shared_memory, "FOLDER", "/nowhere/shm")
    assert shared_memory.workers_that_fit(4, {"x": np.zeros(3)}, 4) == 4


def test_threads_make_the_same_batches_where_no_process_fits(monkeypatch, capsys):
    wanted = [next(batches(0))["x"] for _ in range(2)]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, 1 << 20))
    found = [next(batches(2))["x"] for _ in range(2)]
    assert "going on with 0" in capsys.readouterr().err
    np.testing.assert_array_equal(found, wanted)


def test_a_killed_process_is_told_in_words():
    def killed():
        yield 1
        raise RuntimeError("Worker process was terminated unexpectedly with exit code -7. Search")

    iterator = shared_memory.named(killed())
    assert next(iterator) == 1
    with pytest.raises(RuntimeError, match="exit code -7.*/dev/shm was full.*data.workers=0"):
        next(iterator)


def test_other_errors_pass():
    def fails():
        raise RuntimeError("a record is damaged")
        yield

    with pytest.raises(RuntimeError, match="^a record is damaged$"):
        next(shared_memory.named(fails()))


# a real one of 10 MB, in a mount namespace of its own; room is asked for while it is "large"
SMALL = """
import sys
from absl import flags
flags.FLAGS(["x"])
sys.path.insert(0, "tests/faults")
import shutil
import test_shared_memory as case
if __name__ == "__main__":
    if "filled later" in sys.argv:
        usage, sizes = shutil.disk_usage, iter([case.Usage(0, 0, 1 << 40)])
        shutil.disk_usage = lambda folder: next(sizes, None) or usage(folder)
    for _, batch in zip(range(4), case.batches(2)):
        print(batch["x"][:, 0].tolist())
"""
MOUNT = "mount -t tmpfs -o size=10m tmpfs /dev/shm"


@pytest.mark.slow
@pytest.mark.parametrize(
    "when", ["small from the start", pytest.param("filled later", marks=pytest.mark.slow)]
)
def test_a_real_small_one(tmp_path, when):
    script = tmp_path / "small.py"
    script.write_text(SMALL)
    done = subprocess.run(
        [*mounts.apart(MOUNT), sys.executable, str(script), when],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if when == "filled later":
        assert done.returncode == 1 and "/dev/shm was full" in done.stderr
    else:
        assert done.returncode == 0 and "going on with 0" in done.stderr
        assert len(done.stdout.splitlines()) == 4
