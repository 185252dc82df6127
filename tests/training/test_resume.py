"""A killed run continues bit for bit; processes of their own, because they are killed for real."""

import random
import signal

import pytest
import runs

from foley_jax.training.checkpointing import checkpoint

STEPS = 40
ARGS = (
    f"--config.total_steps={STEPS}",
    "--config.checkpoint.every_steps=5",
    "--config.data.delay_s=0.005",  # long enough to be killed in the middle
)


@pytest.fixture(scope="module")
def uninterrupted(toy_data, tmp_path_factory):
    """Losses of a run that nobody disturbed, one process."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    runs.finish(runs.spawn(toy_data, workdir, *ARGS))
    losses = runs.losses(workdir)
    assert sorted(losses) == list(range(1, STEPS + 1))
    assert len(set(losses.values())) == STEPS  # dropout, data and weights differ at every step
    return losses


def _logged(workdir):
    """Lines logged so far."""
    file = workdir / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def _wait_and_kill(workdir, moment, processes):
    """Kills once `moment` steps are logged and something is on disk; the step it reached."""
    runs.wait_for(lambda: _logged(workdir) >= moment and checkpoint.latest_step(workdir), processes)
    for process in processes:
        process.kill()
    for process in processes:
        process.communicate()
    reached = max(runs.losses(workdir))
    assert reached < STEPS, "killed too late to show anything"


@pytest.mark.slow
def test_kill_and_resume_is_bit_exact(toy_data, tmp_path, uninterrupted):
    _wait_and_kill(tmp_path, random.randint(6, 30), [runs.spawn(toy_data, tmp_path, *ARGS)])
    output = runs.finish(runs.spawn(toy_data, tmp_path, *ARGS))[0]
    assert "continues at step" in output
    assert runs.losses(tmp_path) == uninterrupted


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_continues(toy_data, tmp_path, uninterrupted):
    args = (*ARGS, "--config.checkpoint.every_steps=1000")
    process = runs.spawn(toy_data, tmp_path, *args)
    runs.wait_for(lambda: _logged(tmp_path) >= 3, [process])
    process.send_signal(signal.SIGTERM)
    output = runs.finish(process, code=75)[0]
    assert "stopped by SIGTERM at step" in output
    stopped = max(runs.losses(tmp_path))

    output = runs.finish(runs.spawn(toy_data, tmp_path, *args))[0]
    assert f"continues at step {stopped}" in output
    assert runs.losses(tmp_path) == uninterrupted


@pytest.mark.slow
def test_two_processes_resume_bit_exact(toy_data, tmp_path, uninterrupted):
    """Two real processes, killed and started again; the losses are those of one process."""

    def start(workdir, *args):
        address = f"127.0.0.1:{runs.free_port()}"
        common = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
        return [
            runs.spawn(
                toy_data,
                workdir,
                "--distributed",
                *args,
                env={**common, "JAX_PROCESS_ID": str(index)},
            )
            for index in range(2)
        ]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    runs.finish(*start(whole, *ARGS))
    assert runs.losses(whole) == pytest.approx(uninterrupted, rel=1e-5)

    _wait_and_kill(killed, 12, start(killed, *ARGS))
    output = runs.finish(*start(killed, *ARGS))[0]
    assert "continues at step" in output
    assert runs.losses(killed) == runs.losses(whole)
