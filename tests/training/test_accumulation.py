"""Gradient accumulation: the update of the whole batch, from parts of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import runs
import toy_task

from configs import cavp as cavp_config
from foley_jax.runtime import distributed
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.training import state as state_lib
from foley_jax.training import step as step_lib
from foley_jax.training import task as task_lib

B = 16


class PlainTask(toy_task.ToyTask):
    """Without dropout, statistics or noise: a mean over examples."""

    accumulates = True

    def loss(self, model, batch, key, *, train):
        del key, train
        error = model(batch["x_BC"], None, train=False) - batch["y_B"]
        return jnp.mean(jnp.square(error)), {"error": jnp.mean(jnp.abs(error))}


class NoisyTask(PlainTask):
    """Says which noise the parts were given."""

    def loss(self, model, batch, key, *, train):
        loss, _ = super().loss(model, batch, key, train=train)
        noise = jax.random.normal(key)
        return loss, {"noise": noise, "noise_squared": jnp.square(noise)}


def step(task, count, devices):
    """(state before, compiled step, batch) of a toy task on some devices."""
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:devices])
    maker = state_lib.StateFactory(task, mesh, lambda params: optax.sgd(1e-2), seed=0, ema=False)
    rng = np.random.default_rng(0)
    local = {
        "x_BC": rng.standard_normal((B, toy_task.FEATURES)).astype(np.float32),
        "y_B": rng.standard_normal(B).astype(np.float32),
    }
    with jax.set_mesh(mesh):
        batch = distributed.global_batch(local, mesh)
        run = step_lib.make(
            task,
            maker,
            mesh,
            schedule=lambda step: jnp.float32(1e-2),
            seed=0,
            ema_decay=0.0,
            accumulate=count,
        )
        return maker.fresh({}), run, batch, mesh


@pytest.mark.slow
@pytest.mark.parametrize(("count", "devices"), [(2, 1), (4, 1), (2, 4), (4, 4)])
def test_parts_give_the_update_of_the_whole(count, devices):
    task = PlainTask(runs.config("nowhere"))
    results = []
    for parts in (1, count):
        state, run, batch, mesh = step(task, parts, devices)
        with jax.set_mesh(mesh):
            results.append(jax.device_get(run(state, batch)))
    (whole, whole_metrics), (cut, cut_metrics) = results
    for name in ("loss", "error", "grad_norm"):
        np.testing.assert_allclose(cut_metrics[name], whole_metrics[name], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(cut.params), jax.tree.leaves(whole.params)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_every_part_has_noise_of_its_own():
    state, run, batch, mesh = step(NoisyTask(runs.config("nowhere")), 4, 1)
    with jax.set_mesh(mesh):
        metrics = jax.device_get(run(state, batch)[1])
    key = jax.random.fold_in(jax.random.key(0), 0)
    noise = np.array([jax.random.normal(jax.random.fold_in(key, i)) for i in range(4)])
    np.testing.assert_allclose(metrics["noise"], noise.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["noise_squared"], np.square(noise).mean(), rtol=1e-5)


def test_cutting_a_batch_moves_no_row():
    """Every device keeps the rows that it has: the only collectives are the gradients' means."""
    state, run, batch, mesh = step(PlainTask(runs.config("nowhere")), 2, 4)
    with jax.set_mesh(mesh):
        program = run.lower(state, batch).compile().as_text()
    for kind in ("all-gather", "all-to-all", "collective-permute"):
        assert f"{kind}(" not in program
    assert "all-reduce(" in program


def test_a_batch_that_cannot_be_cut():
    state, run, batch, mesh = step(PlainTask(runs.config("nowhere")), 3, 1)
    with jax.set_mesh(mesh), pytest.raises(ValueError, match=r"multiple of 3, or config\.acc"):
        run(state, batch)


def test_a_contrastive_loss_is_not_cut(toy_data):
    task = task_lib.resolve(cavp_config.get_config("demo"))
    assert not task.accumulates
    with pytest.raises(ValueError, match="compares the examples of the whole batch"):
        step_lib.make(task, None, None, schedule=None, seed=0, ema_decay=0.0, accumulate=2)


@pytest.mark.slow
def test_the_loop_accumulates(toy_data, tmp_path):
    target = "test_accumulation:PlainTask"
    runs.train(toy_data, tmp_path / "whole", task=target, batch_size=B)
    runs.train(toy_data, tmp_path / "cut", task=target, batch_size=B, accumulate=2)
    assert runs.losses(tmp_path / "cut") == pytest.approx(runs.losses(tmp_path / "whole"), rel=1e-5)
