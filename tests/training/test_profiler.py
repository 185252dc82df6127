"""Traces: of the updates that were asked for, also after a resume."""

import jax
import pytest
import runs

from foley_jax.training import loop
from foley_jax.training.logging import profiler

pytestmark = pytest.mark.usefixtures("one_device")


def traced(workdir):
    """Numbers of the updates in the only trace of a run."""
    (file,) = (workdir / "profile").glob("plugins/profile/*/*.xplane.pb")
    events = [
        dict(event.stats)
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes
        for line in plane.lines
        for event in line.events
        if event.name == "train"
    ]
    return sorted({int(event["step_num"]) for event in events})


@pytest.mark.slow
def test_trace_holds_the_wanted_updates(toy_data, tmp_path, capsys):
    _train(runs.config(toy_data, total_steps=6), tmp_path, (3, 4))
    assert traced(tmp_path) == [3, 4]
    assert f"trace in {tmp_path / 'profile'}" in capsys.readouterr().err


@pytest.mark.slow
def test_resumed_run_traces_what_is_left_and_an_ended_one_what_there_was(toy_data, tmp_path):
    _train(runs.config(toy_data, total_steps=4), tmp_path, None)
    assert not (tmp_path / "profile").exists()
    _train(runs.config(toy_data, total_steps=7), tmp_path, (2, 60))
    assert traced(tmp_path) == [5, 6, 7]


def test_nothing_is_traced_after_the_interval(tmp_path):
    recorder = profiler.Profiler(tmp_path, (2, 3))
    assert [recorder.begins(number) for number in (1, 2, 3, 4)] == [False, True, True, False]
    assert not recorder.ends(3)  # nothing runs
    assert not recorder.stop()


def _train(config, workdir, profile):
    return loop.train(config, workdir, profile=profile)
