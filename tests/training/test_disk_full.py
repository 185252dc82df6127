"""A save that fails for want of room: old checkpoints stay, training goes on and says so."""

import resource

import forked
import pytest
import runs

from foley_jax.training.checkpointing import checkpoint

STEPS = 30
FILE_BYTES = 256 * 1024  # no file may grow beyond: what a full disk does to the big files
BALLAST_KB = 1024


def limit(run, num_bytes):
    """Lets no file of a process grow further; -1 lifts it."""
    _, hard = resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (num_bytes, hard))


def command(data, workdir, **fields):
    """The command line of a run that saves every second step."""
    fields = {
        "total_steps": STEPS,
        "checkpoint.every_steps": 2,
        "checkpoint.keep": 2,
        "model.ballast": BALLAST_KB,
        "data.delay_s": 0.02,  # slow enough for the test to keep up
        **fields,
    }
    config = forked.HERE / "indexed_config.py"
    shown = [f"--config.{name}={value}" for name, value in fields.items()]
    return [f"--config={config}:{data}", f"--workdir={workdir}", *shown]


def started(data, workdir, **fields):
    """A run with a first checkpoint."""
    run = forked.Run(command(data, workdir, **fields), workdir / "run.log")
    forked.wait_for(lambda: checkpoint.latest_step(workdir), [run])
    return run


def names(workdir):
    """Returns what lies in the folder of checkpoints."""
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


@pytest.mark.slow
def test_full_disk_loses_nothing_and_the_end_says_so(toy_data, tmp_path):
    """No room, room again, no room at the end; then the same command once more."""
    run = started(toy_data, tmp_path)
    with forked.ended(run):
        limit(run, FILE_BYTES)
        forked.wait_for(lambda: "could not be saved" in run.output, [run])
        kept = checkpoint.latest_step(tmp_path)  # the old ones were not removed
        limit(run, -1)
        forked.wait_for(lambda: checkpoint.latest_step(tmp_path) > kept, [run])
        limit(run, FILE_BYTES)
        assert run.wait_end() == 1
    warning = next(line for line in run.output.splitlines() if "could not be saved" in line)
    assert "File too large" in warning and "the next save tries again" in warning, warning
    last = run.output.rstrip().splitlines()[-1]
    assert last.startswith(f"error: step {STEPS} could not be saved"), last
    assert "File too large" in last and "make room" in last
    newest = checkpoint.latest_step(tmp_path)
    assert kept < newest < STEPS and f"{newest}]" in last
    assert not [name for name in names(tmp_path) if "-tmp" in name]  # takes no room
    assert sorted(runs.losses(tmp_path)) == list(range(1, STEPS + 1))

    output = forked.finish([forked.Run(command(toy_data, tmp_path), tmp_path / "again.log")])
    assert f"continues at step {newest}" in output
    assert names(tmp_path) == [str(STEPS - 2), str(STEPS)]


@pytest.mark.slow
def test_two_processes_agree_that_a_save_failed(toy_data, tmp_path):
    pair = forked.start_together(command(toy_data, tmp_path), tmp_path, count=2, devices=1)
    with forked.ended(*pair):
        forked.wait_for(lambda: checkpoint.latest_step(tmp_path), pair)
        for run in pair:
            limit(run, FILE_BYTES)  # only the first one writes what is a copy everywhere
        forked.wait_for(lambda: "could not be saved" in pair[0].output, pair)
        for run in pair:
            limit(run, -1)
        assert [run.wait_end() for run in pair] == [0, 0]
    assert names(tmp_path) == [str(STEPS - 2), str(STEPS)]
