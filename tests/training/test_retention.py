"""Which checkpoints stay: the newest, and the best of a metric."""

import logging
import math

import jax.numpy as jnp
import pytest
import runs

from foley_jax.training.checkpointing import checkpoint, retention

LOSSES = {1: 0.5, 2: 0.1, 3: 0.4, 4: 0.3, 5: 0.6, 6: 0.7}


def rule(**fields):
    return retention.Retention(**fields)


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"keep": None, "keep_best": 1}, {1, 2, 3, 4, 5, 6}),
        ({"keep": 2}, {5, 6}),
        ({"keep": 2, "keep_best": 1}, {2, 5, 6}),
        ({"keep": 1, "keep_best": 2}, {2, 4, 6}),
        ({"keep": 1, "keep_best": 2, "best": "loss:max"}, {5, 6}),
        ({"keep": 9, "keep_best": 9}, {1, 2, 3, 4, 5, 6}),
        ({"keep": 1, "keep_best": 1, "best": "other:min"}, {6}),
    ],
)
def test_newest_and_best_stay(fields, kept):
    metrics = {step: {"loss": value} for step, value in LOSSES.items()}
    assert rule(**fields).of(sorted(LOSSES), metrics) == kept


def test_unmeasured_and_infinite_ones_are_never_the_best():
    metrics = {1: None, 2: {"loss": math.nan}, 3: {"loss": -math.inf}, 4: {"loss": 9.0}}
    assert rule(keep=1, keep_best=2).of([0, 1, 2, 3, 4, 5], metrics) == {4, 5}


def test_later_of_two_equal_ones_is_better():
    metrics = {1: {"loss": 1.0}, 2: {"loss": 1.0}, 3: {"loss": 2.0}}
    assert rule(keep=1, keep_best=1).of([1, 2, 3], metrics) == {2, 3}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"best": "loss"}, "best is 'loss', expected METRIC:min or METRIC:max"),
        ({"best": "loss:lower"}, "expected METRIC:min"),
        ({"best": ":min"}, "expected METRIC:min"),
        ({"keep": 0}, "keep is 0, expected 1 or more"),
        ({"keep_best": -1}, "keep_best is -1"),
    ],
)
def test_wrong_rules_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        rule(**fields)


def groups(value):
    return {"params": {"a": jnp.full(3, float(value))}}


def save_all(folder, losses, **fields):
    checkpoints = checkpoint.Checkpoints(folder, **fields)
    for step, loss in losses.items():
        checkpoints.save(step, groups(step), None if loss is None else {"loss": loss})
    checkpoints.wait()
    steps = checkpoints.steps()
    checkpoints.close()
    return steps


def test_best_ones_survive_on_disk_and_across_processes(tmp_path):
    assert save_all(tmp_path, LOSSES, keep=2, keep_best=1) == [2, 5, 6]
    # another process knows from the disk what they were worth
    assert save_all(tmp_path, {7: None, 8: 0.2}, keep=2, keep_best=1) == [2, 7, 8]
    assert save_all(tmp_path, {9: 0.05}, keep=2, keep_best=1) == [8, 9]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["8", "9"]


def test_metric_that_the_evaluation_lacks_is_named(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep_best=1, best="accuracy:max")
    with pytest.raises(ValueError, match="'accuracy:max', but the evaluation gives error, loss"):
        checkpoints.save(1, groups(1), {"loss": 1.0, "error": 2.0})
    checkpoints.close()


def test_unfinished_work_of_a_killed_process_is_named_and_removed(tmp_path, caplog):
    save_all(tmp_path, {1: None})
    folder = tmp_path / "checkpoints"
    torn = folder / "2.orbax-checkpoint-tmp"
    (torn / "params").mkdir(parents=True)
    (folder / "deleted" / "0").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        reader = checkpoint.Checkpoints(tmp_path, read_only=True)
        assert reader.steps() == [1] and torn.exists() and not caplog.text
        reader.close()
        assert save_all(tmp_path, {3: None}) == [1, 3]
    assert f"{torn} is only half written" in caplog.text
    assert sorted(p.name for p in folder.iterdir()) == ["1", "3"]


def test_saving_a_step_before_the_newest_is_refused(tmp_path):
    save_all(tmp_path, {5: None})
    with pytest.raises(ValueError, match=r"step 4 cannot follow \[5\]"):
        save_all(tmp_path, {4: None})


@pytest.mark.slow
def test_run_keeps_its_best(toy_data, tmp_path):
    checkpoint_fields = {"every_steps": 2, "keep": 1, "keep_best": 2, "best": "error:min"}
    config = runs.config(toy_data, total_steps=12)
    with config.unlocked():
        config.checkpoint = checkpoint_fields
    runs.loop.train(config, tmp_path)
    errors = {step: line["error"] for step, line in runs.lines(tmp_path, "eval").items()}
    assert sorted(errors) == [2, 4, 6, 8, 10, 12]  # evaluated wherever it saved
    best = sorted(errors, key=lambda step: errors[step])[:2]
    reader = checkpoint.Checkpoints(tmp_path, read_only=True)
    assert reader.steps() == sorted({*best, 12})
    assert reader.metrics(best[0])["error"] == errors[best[0]]
    reader.close()


def test_best_without_evaluation_is_refused(toy_data, tmp_path):
    config = runs.config(toy_data, eval_batches=0)
    with config.unlocked():
        config.checkpoint.keep_best = 1
    with pytest.raises(ValueError, match="keep_best is 1, but eval_batches is 0"):
        runs.loop.train(config, tmp_path)
