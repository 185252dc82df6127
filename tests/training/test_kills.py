"""kill -9 at any moment: runs go on from a whole checkpoint, no record is lost or repeated.

Every test counts what it hit, so that kills that meet nothing would show.
"""

import random
import re
import signal
import time

import forked
import pytest
import runs

KEEP = 2  # as indexed_config.py says
EVERY = 2  # steps from save to save
ROWS = 8  # examples of a batch
RECORDS = 40  # of the toy data
BALLAST_KB = 16 * 1024  # so that writing takes long enough to be hit
SPAN_S = 0.3  # writing takes about so long
_NEWS = re.compile(r"error: process \d of 2 has died; the same command")


def arguments(data, workdir, steps, **fields):
    """The command line of a run; `section__field=value` as config fields."""
    fields = {
        "total_steps": steps,
        "checkpoint__every_steps": EVERY,
        "model__ballast": BALLAST_KB,
        **fields,
    }
    shown = [f"--config.{name.replace('__', '.')}={value}" for name, value in fields.items()]
    config = forked.HERE / "indexed_config.py"
    return [f"--config={config}:{data}", f"--workdir={workdir}", *shown]


def consumed(workdir):
    """Step -> records of its batch, in order, and number of batches the state has seen."""
    lines = runs.lines(workdir)
    return {
        step: ([int(line[f"record_{i}"]) for i in range(ROWS)], int(line["seen"]))
        for step, line in lines.items()
    }


def uninterrupted(data, workdir, steps, *, count=1, **fields):
    """Losses and records of a run that nobody disturbs."""
    workdir.mkdir()
    fields = {"checkpoint__every_steps": 1000, **fields}
    command = arguments(data, workdir, steps, **fields)
    forked.finish(forked.start_together(command, workdir, count=count, devices=1))
    losses, records = runs.losses(workdir), consumed(workdir)
    assert sorted(losses) == list(range(1, steps + 1)) and len(set(losses.values())) == steps
    for first in range(1, steps, RECORDS // ROWS):  # every epoch holds every record once
        epoch = [r for step in range(first, first + RECORDS // ROWS) for r in records[step][0]]
        assert sorted(epoch) == list(range(RECORDS))
    assert [records[step][1] for step in sorted(records)] == list(range(1, steps + 1))
    return losses, records


def unfinished(workdir):
    """Folders of checkpoints that are being written, or were when the writer died."""
    folder = workdir / "checkpoints"
    return {p.name for p in folder.iterdir() if "-tmp" in p.name} if folder.exists() else set()


def whole(workdir):
    """Steps that stand complete on disk."""
    folder = workdir / "checkpoints"
    return [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.exists() else []


def saved(workdir):
    """The newest of them; 0 if there is none."""
    return max(whole(workdir), default=0)


def continued(output):
    """The step at which a process says it went on; 0 if it began."""
    found = re.search(r"continues at step (\d+)", output)
    assert found or " starts: " in output, output[-3000:]
    return int(found[1]) if found else 0


def kill_inside_a_save(command, workdir, rng):
    """Starts the run, kills it while it saves; whether it was hit, and what it printed."""
    run = forked.Run(command, workdir / "killed.log")
    with forked.ended(run):
        goal = saved(workdir) + rng.choice([0, EVERY])  # also a save after one that went well

        def saves():  # what a predecessor left is gone once it says where it starts
            return "parameters trained" in run.output and unfinished(workdir)

        forked.wait_for(lambda: saves() and saved(workdir) >= goal, [run])
        time.sleep(rng.uniform(0.0, SPAN_S))
        run.kill()
    return bool(unfinished(workdir)), run.output


def kills_inside_saves(data, folder, count, expected):
    """The script of the test below; returns how many kills left a half-written checkpoint."""
    rng, (losses, records) = random.Random(), expected
    steps = len(losses)
    workdir = folder / "run"
    workdir.mkdir()
    command = arguments(data, workdir, steps)
    hits, torn, most = 0, False, 0
    for _ in range(count):
        before = saved(workdir)
        hit, output = kill_inside_a_save(command, workdir, rng)
        assert continued(output) == before
        assert ("is only half written" in output) == torn, output  # named when it was there
        assert "damaged" not in output and "could not" not in output
        hits, torn = hits + hit, hit
        most = max(most, len(whole(workdir)))
        assert len(whole(workdir)) >= min(most, KEEP)  # no old one goes before the new one is there
        assert saved(workdir) < steps, "the run ended before it was killed often enough"
    before = saved(workdir)
    run = forked.Run(command, workdir / "last.log")
    assert continued(forked.finish([run])) == before
    assert not unfinished(workdir)
    assert runs.losses(workdir) == losses  # bit for bit
    assert consumed(workdir) == records
    print(f"{count} kills, {hits} inside a save, newest save before the last start {before}")
    return hits


@pytest.mark.parametrize(
    "count, steps",
    [
        pytest.param(12, 60, marks=pytest.mark.slow),
        pytest.param(30, 130, marks=pytest.mark.by_hand),
    ],
)
def test_killed_inside_saves(count, steps, toy_data, tmp_path):
    expected = uninterrupted(toy_data, tmp_path / "whole", steps)
    assert kills_inside_saves(toy_data, tmp_path, count, expected) >= count // 2


def wait_until_logged(workdir, step, started):
    """Waits until these processes have begun, and `step` is in the log of the run."""
    log = workdir / "metrics.jsonl"

    def reached():
        begun = "parameters trained" in started[0].output
        return begun and log.exists() and log.read_text().count("\n") >= step

    forked.wait_for(reached, started)


def kills_of_one_of_two(data, folder, count, expected):
    """Kills one of two processes `count` times; returns the losses of the run."""
    rng, (losses, records) = random.Random(), expected
    steps = len(losses)
    workdir = folder / "run"
    workdir.mkdir()
    command = arguments(data, workdir, steps, checkpoint__every_steps=5, model__ballast=0)
    waits, lost = [], []
    for number in range(count):
        before = saved(workdir)
        pair = forked.start_together(command, workdir, count=2, devices=1, name=f"kill{number}")
        with forked.ended(*pair):
            soon = number % 5 == 4  # after the start, or after some steps
            wait_until_logged(workdir, 0 if soon else before + rng.randint(2, 8), pair)
            time.sleep(rng.uniform(0.0, 0.1))
            victim = rng.randrange(2)
            pair[victim].kill()
            began = time.monotonic()
            other = pair[1 - victim]
            assert other.wait_end(60) == 1
            waits.append(time.monotonic() - began)
        assert _NEWS.search(other.output.rstrip().splitlines()[-1]), other.output[-3000:]
        assert "Fatal Python error" not in other.output
        assert continued(pair[0].output) == before
        lost.append(max(runs.losses(workdir), default=0) - saved(workdir))
        assert saved(workdir) < steps, "the run ended before it was killed often enough"
    pair = forked.start_together(command, workdir, count=2, devices=1)
    forked.finish(pair)
    assert consumed(workdir) == records
    print(
        f"{count} kills of one of two; the other ended after {max(waits):.2f} s at most; "
        f"steps done again {lost}"
    )
    return runs.losses(workdir)


@pytest.mark.parametrize(
    "count, steps",
    [pytest.param(5, 60, marks=pytest.mark.slow), pytest.param(10, 110, marks=pytest.mark.by_hand)],
)
def test_one_of_two_is_killed(count, steps, toy_data, tmp_path):
    expected = uninterrupted(toy_data, tmp_path / "whole", steps, count=2, model__ballast=0)
    losses = kills_of_one_of_two(toy_data, tmp_path, count, expected)
    assert losses == expected[0]  # bit for bit


@pytest.mark.slow
def test_goes_on_with_another_number_of_processes_and_devices(toy_data, tmp_path):
    """2 processes of 2 devices, killed; 1 of 4, stopped; 4 of 1: the same records, in order."""
    steps = 60
    losses, records = uninterrupted(toy_data, tmp_path / "whole", steps, model__ballast=0)
    workdir = tmp_path / "run"
    workdir.mkdir()
    command = arguments(toy_data, workdir, steps, checkpoint__every_steps=5, model__ballast=0)
    two = forked.start_together(command, workdir, count=2, devices=2, name="two")
    with forked.ended(*two):
        wait_until_logged(workdir, 12, two)
    assert saved(workdir)
    one = forked.start_together(command, workdir, count=1, devices=4, name="one")
    with forked.ended(*one):
        wait_until_logged(workdir, 25, one)
        one[0].send(signal.SIGTERM)
        assert one[0].wait_end() == 75
    assert continued(one[0].output) >= 5
    output = forked.finish(forked.start_together(command, workdir, count=4, devices=1))
    assert continued(output) >= 24
    assert consumed(workdir) == records
    assert runs.losses(workdir) == pytest.approx(losses, rel=1e-5)
