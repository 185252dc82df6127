"""The loop: same losses on any mesh, one compile, parts of other runs, errors that explain."""

import itertools
import signal

import jax
import numpy as np
import pytest
import runs
import toy_task

from foley_jax.media import specs
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.runtime import partition
from foley_jax.training import loop, paths
from foley_jax.training import step as step_lib
from foley_jax.training import task as task_lib
from foley_jax.training.checkpointing import checkpoint, run_directory
from foley_jax.training.checkpointing import init_from as graft

STEPS = 12


@pytest.fixture(scope="module")
def finished(toy_data, tmp_path_factory):
    """A finished run on one device: its workdir and last state."""
    workdir = tmp_path_factory.mktemp("finished")
    with one_device():
        final = runs.train(toy_data, workdir)
    return workdir, final


def one_device():
    """Makes the loop see the first device only."""
    return devices(1)


class devices:
    """Context in which `mesh_lib.make_mesh` uses the first `count` devices."""

    def __init__(self, count):
        self.count = count

    def __enter__(self):
        self.make_mesh = mesh_lib.make_mesh

        def smaller(**sizes):
            return self.make_mesh(**sizes, devices=jax.devices()[: self.count])

        mesh_lib.make_mesh = smaller

    def __exit__(self, *_):
        mesh_lib.make_mesh = self.make_mesh


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "fsdp"),
    [
        pytest.param(2, 1, marks=pytest.mark.slow),
        (4, 2),
        pytest.param(8, 1, marks=pytest.mark.slow),
    ],
)
def test_losses_do_not_depend_on_the_mesh(toy_data, tmp_path, finished, monkeypatch, count, fsdp):
    monkeypatch.setattr(partition, "FSDP_MIN_BYTES", 0)
    with devices(count):
        final = runs.train(toy_data, tmp_path, mesh__fsdp=fsdp)
    kernel = final.params["layers"][0]["kernel"]
    assert len(kernel.sharding.device_set) == count
    assert kernel.sharding.is_fully_replicated == (fsdp == 1)
    assert runs.losses(tmp_path) == pytest.approx(runs.losses(finished[0]), rel=1e-5)


def test_everything_that_should_move_moves_and_frozen_parts_do_not(finished, toy_data):
    workdir, final = finished
    config = run_directory.load_config(workdir)
    mesh = mesh_lib.make_mesh(1, devices=jax.devices()[:1])
    first = loop.maker_of(task_lib.resolve(config), config, mesh).fresh({})
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), first, final)
    assert all(jax.tree.leaves((moved.params, moved.ema, moved.rest["bn"], moved.rest["seen"])))
    assert not any(jax.tree.leaves(moved.rest["frozen"]))
    assert "frozen" not in final.params
    # the average lags behind the parameters
    lag = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), final.params, final.ema)
    assert all(value > 0 for value in jax.tree.leaves(lag))


def test_loss_falls_and_log_is_complete(finished):
    lines = runs.lines(finished[0])
    assert sorted(lines) == list(range(1, STEPS + 1))
    losses = [lines[step]["loss"] for step in sorted(lines)]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    assert {"loss", "loss_mean", "lr", "grad_norm", "error", "steps_per_s"} <= set(lines[1])
    evaluation = runs.lines(finished[0], "eval")
    assert evaluation[STEPS]["num_predictions"] == 8
    assert np.isfinite(evaluation[STEPS]["loss"])


def test_one_compile_and_donated_state(toy_data, tmp_path, monkeypatch):
    steps, states = [], []
    make = step_lib.make

    def spy(*args, **kwargs):
        step = make(*args, **kwargs)
        steps.append(step)

        def call(train_state, batch):
            states.append(train_state)
            return step(train_state, batch)

        return call

    monkeypatch.setattr(step_lib, "make", spy)
    with one_device():
        runs.train(toy_data, tmp_path, total_steps=4)
    assert [step._cache_size() for step in steps] == [1]
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(states[2].params))


@pytest.mark.slow
def test_checkpoint_of_four_way_fsdp_continues_on_one_device(
    toy_data, tmp_path, finished, monkeypatch
):
    monkeypatch.setattr(partition, "FSDP_MIN_BYTES", 0)
    with devices(4):
        stopped = runs.train(toy_data, tmp_path, mesh__fsdp=4, total_steps=STEPS, log_every=1)
    del stopped
    newest = checkpoint.Checkpoints(tmp_path)
    newest._manager.delete(STEPS)
    newest.close()
    with one_device():
        final = runs.train(toy_data, tmp_path)
    assert len(final.params["layers"][0]["kernel"].sharding.device_set) == 1
    assert runs.losses(tmp_path) == pytest.approx(runs.losses(finished[0]), rel=1e-5)


@pytest.mark.slow
def test_sigterm_saves_and_the_same_call_continues_bit_exact(
    toy_data, tmp_path, finished, monkeypatch
):
    """In this process; test_resume.py kills others."""
    make = step_lib.make

    def spy(*args, **kwargs):
        step, calls = make(*args, **kwargs), itertools.count(1)

        def call(train_state, batch):
            if next(calls) == 3:
                signal.raise_signal(signal.SIGTERM)
            return step(train_state, batch)

        return call

    with monkeypatch.context() as patch, one_device():
        patch.setattr(step_lib, "make", spy)
        runs.train(toy_data, tmp_path)
    assert checkpoint.latest_step(tmp_path) == max(runs.losses(tmp_path)) == 3
    with one_device():
        runs.train(toy_data, tmp_path)
    assert runs.losses(tmp_path) == runs.losses(finished[0])


def test_finished_run_is_left_alone(toy_data, finished, capsys):
    assert runs.train(toy_data, finished[0]) is None
    assert f"finished at step {STEPS} already" in capsys.readouterr().out


def test_zero_steps_saves_and_evaluates_the_initial_model(toy_data, tmp_path):
    with one_device():
        runs.train(toy_data, tmp_path, total_steps=0)
    assert checkpoint.latest_step(tmp_path) == 0
    assert 0 in runs.lines(tmp_path, "eval")


def test_evaluate_repeats_the_evaluation_of_the_run(toy_data, finished):
    with one_device():
        metrics = loop.evaluate(runs.config(toy_data), finished[0])
    logged = runs.lines(finished[0], "eval")[STEPS]
    assert metrics["loss"] == pytest.approx(logged["loss"], rel=1e-6)


def test_small_eval_split_makes_one_smaller_batch(toy_data, tmp_path):
    with devices(4):
        runs.train(toy_data, tmp_path, total_steps=0, batch_size=32, eval_batches=3)
    assert runs.lines(tmp_path, "eval")[0]["num_predictions"] == 12


def test_nan_stops_the_run_and_names_the_step(toy_data, tmp_path):
    with one_device(), pytest.raises(loop.NanError, match="nan at step 7"):
        runs.train(toy_data, tmp_path, loss__nan_after=6, log_every=100)
    assert checkpoint.latest_step(tmp_path) == 4  # the state of step 8 is worthless


def test_parts_of_another_run_are_taken_over(toy_data, tmp_path, finished):
    source, trained = finished
    with one_device():
        final = runs.train(
            toy_data,
            tmp_path,
            total_steps=0,
            seed=99,
            init_from={"layers/0": f"{source}:layers/0", "frozen": f"{source}:"},
        )
    np.testing.assert_array_equal(
        final.params["layers"][0]["kernel"], trained.ema["layers"][0]["kernel"]
    )
    np.testing.assert_array_equal(final.ema["layers"][0]["bias"], trained.ema["layers"][0]["bias"])
    np.testing.assert_array_equal(final.rest["frozen"]["kernel"], trained.rest["frozen"]["kernel"])
    assert np.any(final.params["layers"][1]["kernel"] != trained.ema["layers"][1]["kernel"])


@pytest.mark.parametrize(
    ("init_from", "message"),
    [
        ({"layers": "{run}:nothing"}, "no part 'nothing'; parts: bn, frozen, layers, seen"),
        ({"nothing": "{run}:layers"}, "the model has no part 'nothing'"),
        ({"layers/0": "{run}:layers/1"}, r"layers/0/kernel: \(8, 1\) in theirs, \(4, 8\) in ours"),
        ({"layers": "{run}:bn"}, "only in ours"),
        ({"layers": "somewhere"}, "expected 'RUN_DIR:path'"),
    ],
)
def test_parts_that_do_not_fit_are_refused(toy_data, tmp_path, finished, init_from, message):
    init_from = {ours: theirs.format(run=finished[0]) for ours, theirs in init_from.items()}
    with one_device(), pytest.raises(ValueError, match=message):
        runs.train(toy_data, tmp_path, init_from=init_from)


def test_missing_run_says_which_command_makes_it(tmp_path):
    run = tmp_path / "demo" / "runs" / "autoencoder"
    with pytest.raises(FileNotFoundError, match="--config=configs/autoencoder.py:demo --workdir"):
        graft.load({"a": f"{run}:a"}, ({"a": np.zeros(1)}, {}))


def test_images_fitted_in_another_way_are_refused(toy_data, tmp_path, monkeypatch):
    wanted = specs.VideoSpec(4.0, 16, 16, fit="letterbox")
    monkeypatch.setattr(toy_task.ToyTask, "video", wanted)
    with pytest.raises(ValueError, match="wanted were fit=letterbox"):
        runs.train(toy_data, tmp_path)


def test_mesh_that_does_not_fit_the_devices_is_explained(toy_data, tmp_path):
    with pytest.raises(ValueError, match="data=3, fsdp=1, which does not fit 8 devices"):
        runs.train(toy_data, tmp_path, mesh__data=3)


def test_batch_that_the_devices_do_not_divide_is_explained(toy_data, tmp_path):
    with devices(4), pytest.raises(ValueError, match="batch of 6 cannot be split over 4 devices"):
        runs.train(toy_data, tmp_path, batch_size=6, eval_batches=0)


def test_paths_round_trip():
    tree = {"a": {0: {"b": 1}, 1: {"b": 2}}, "c": 3}
    flat = paths.flatten(tree)
    assert flat == {"a/0/b": 1, "a/1/b": 2, "c": 3}
    assert paths.nest(flat) == tree
    assert paths.restore(tree, flat) == tree
