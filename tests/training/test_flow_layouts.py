"""MMAudio's stage on several processes and devices, killed and continued: the same losses."""

import flow_stage_config
import forked
import numpy as np
import pytest
import runs

from foley_jax.training.checkpointing import checkpoint
from tests.mmaudio import flow_records

pytestmark = pytest.mark.by_hand  # test_layouts.py and test_resume.py are the same for others
STEPS = flow_stage_config.STEPS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return flow_records.write(tmp_path_factory.mktemp("features"))


def _start(data, workdir, *args, count=1, devices=4):
    workdir.mkdir(exist_ok=True)
    config = f"--config={forked.HERE / 'flow_stage_config.py'}:{data}"
    command = [config, f"--workdir={workdir}", *args]
    return forked.start_together(command, workdir, count=count, devices=devices // count)


def _losses(data, workdir, *args, **layout):
    forked.finish(_start(data, workdir, *args, **layout), timeout=600)
    found = runs.losses(workdir)
    assert sorted(found) == list(range(1, STEPS + 1))
    return found


def _killed(data, workdir, *args, **layout):
    """A run that is killed after some step; returns the last step on disk."""
    started = _start(data, workdir, *args, **layout)
    forked.wait_for(lambda: (checkpoint.latest_step(workdir) or 0) >= 2, started, timeout=600)
    for run in started:
        run.kill()
    step = checkpoint.latest_step(workdir)
    assert step < STEPS, "killed too late to show anything"
    return step


@pytest.fixture(scope="module")
def one(data, tmp_path_factory):
    """Losses of one process with four devices."""
    found = _losses(data, tmp_path_factory.mktemp("one"))
    assert len(set(found.values())) == STEPS and np.isfinite(list(found.values())).all()
    return found


def _difference(found, want):
    return max(abs(found[step] - want[step]) / abs(want[step]) for step in want)


@pytest.mark.parametrize("count", [2, 4])
def test_losses_do_not_depend_on_the_processes(data, one, tmp_path, count):
    worst = _difference(_losses(data, tmp_path / "run", count=count), one)
    print(f"{count} processes: {worst:.1e}")
    assert worst <= 1e-5


def test_a_killed_run_goes_on_bit_for_bit(data, one, tmp_path):
    _killed(data, tmp_path / "run")
    assert _losses(data, tmp_path / "run") == one


def test_a_checkpoint_cut_over_four_devices_goes_on_with_one(data, one, tmp_path):
    cut = ("--config.mesh.fsdp=4",)
    _killed(data, tmp_path / "run", *cut)
    worst = _difference(_losses(data, tmp_path / "run", devices=1), one)
    print(f"FSDP 4, then one device: {worst:.1e}")
    assert worst <= 1e-5
