"""The stage of the mel autoencoder: its loss, its kernels, and that it learns."""

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import mmaudio_vae
from foley_jax.mmaudio.tasks import vae
from foley_jax.training import paths
from foley_jax.training import task as task_lib

pytestmark = pytest.mark.usefixtures("quick_compilation")


def tiny():
    config = mmaudio_vae.get_config("demo")
    config.model.autoencoder.update({"width": 4, "latent_dim": 2})
    config.loss.crop_frames = 8
    return task_lib.resolve(config)


def batch():
    rng = np.random.default_rng(0)
    audio_BL = rng.integers(-9000, 9000, (3, 16 * 256)).astype(np.int16)
    return {"audio_BL": audio_BL, "start_B": np.array([0, 3, 8], np.int32)}


def test_divergence_is_that_of_normals():
    """Beside the integral by sums over a grid."""
    mean, logvar = 0.7, -1.2
    x = np.linspace(-12, 12, 20001)
    log_p = -0.5 * ((x - mean) ** 2 / np.exp(logvar) + logvar + np.log(2 * np.pi))
    log_q = -0.5 * (x**2 + np.log(2 * np.pi))
    want = np.sum(np.exp(log_p) * (log_p - log_q)) * (x[1] - x[0])
    np.testing.assert_allclose(
        vae.kl_divergence(jnp.float32(mean), jnp.float32(logvar)), want, rtol=1e-5
    )


def test_projection_normalises_kernels_alone_and_twice_is_once():
    task = tiny()
    params = nnx.to_pure_dict(nnx.state(filled.module(task.build), nnx.Param))
    large = jax.tree.map(lambda x: 100 * x, params)  # beside it the norm's small number is nothing
    project = filled.jit(task.constrain)
    once = project(large)
    again = paths.flatten(project(once))
    for path, leaf in paths.flatten(jax.device_get(large)).items():
        now = np.asarray(paths.flatten(once)[path])
        np.testing.assert_allclose(again[path], now, rtol=2e-4, err_msg=path)
        if path.endswith("kernel"):
            norm = np.linalg.norm(leaf.reshape(-1, leaf.shape[-1]), axis=0)
            np.testing.assert_allclose(now, leaf / norm, rtol=2e-4, atol=1e-7, err_msg=path)
        else:
            np.testing.assert_array_equal(now, leaf, err_msg=path)


def test_odd_crops_are_refused():
    config = mmaudio_vae.get_config("demo")
    config.loss.crop_frames = 63
    with pytest.raises(ValueError, match="crop_frames is 63, expected an even number"):
        task_lib.resolve(config)


@pytest.mark.slow
def test_it_learns():
    """Losses of one batch; every gradient is finite."""
    task = tiny()
    model = task.build(nnx.Rngs(0))
    assert float(model.data_mean[...].mean()) == -2.5
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    params = nnx.to_pure_dict(params)
    optimizer = optax.adam(1e-2)

    def loss(params, batch):
        merged = nnx.merge(graphdef, params, rest)
        return task.loss(merged, batch, jax.random.key(0), train=True)

    @filled.jit
    def step(params, state, batch):
        (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params, batch)
        updates, state = optimizer.update(grads, state)
        finite = jnp.all(jnp.array([jnp.isfinite(g).all() for g in jax.tree.leaves(grads)]))
        return task.constrain(optax.apply_updates(params, updates)), state, value, finite

    state, values = optimizer.init(params), []
    for _ in range(40):
        params, state, value, finite = step(params, state, batch())
        values.append(float(value))
        assert finite
    assert values[-1] < 0.6 * values[0], values
