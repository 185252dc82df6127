"""Ancestral sampling against MM-Diffusion's loop and a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from foley_jax.diffusion import gaussian, schedule
from foley_jax.diffusion.samplers import ddpm

LINEAR = schedule.linear()


@pytest.mark.parametrize("num_steps", [50, 1000])
def test_runs_equal_mm_diffusion(num_steps):
    run = f"ddpm{num_steps}"
    table = schedule.respace(LINEAR, ddpm.even_steps(LINEAR, num_steps))
    np.testing.assert_array_equal(table.model_times[::-1], toys.MM_DIFFUSION[f"{run}/t_model"])
    noises = toys.pair_noises(run)
    x = next(noises)

    @jax.jit
    def step(x, index, noise):
        eps = toys.pair_eps(x, jnp.full((2,), jnp.asarray(table.model_times)[index]))
        return ddpm.step(table, x, eps, index, noise, variance="fixed_large", clip_x0=True)

    for index in range(num_steps - 1, -1, -1):
        x = step(x, index, next(noises))
    for name, got in x.items():
        np.testing.assert_allclose(got, toys.MM_DIFFUSION[f"{run}/{name}"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("index", [999, 500, 1, 0])
def test_single_steps_equal_mm_diffusion(index):
    shapes = toys.SHAPES
    noise = next(toys.pair_noises(f"onestep{index}"))
    x = {k: jnp.asarray(toys.fill.inp(f"onestep.{k}", s, "public/")) for k, s in shapes.items()}
    eps = toys.pair_eps(x, jnp.full((2,), float(index)))
    got = ddpm.step(LINEAR, x, eps, jnp.int32(index), noise, variance="fixed_large", clip_x0=True)
    t_B = jnp.full((2,), index)
    x0 = jax.tree.map(lambda a: a.clip(-1, 1), gaussian.to_x0(LINEAR, x, t_B, eps, "eps"))
    for name in shapes:
        golden = f"p_sample_t{index}/{{}}_{name}".format
        np.testing.assert_allclose(got[name], toys.MM_DIFFUSION[golden("sample")], atol=1e-5)
        want = toys.MM_DIFFUSION[golden("pred_start")]
        # step 999 multiplies x and eps, and their rounding, by 158
        np.testing.assert_allclose(x0[name], want, atol=1e-4 if index == 999 else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("variance", ["posterior", "fixed_large"])
def test_gaussian_data_come_out_with_their_spread(variance):
    data = toys.Gaussian(LINEAR)
    x_T = jax.random.normal(jax.random.key(0), (4000, 1))
    made = ddpm.sample(data.denoise, LINEAR, x_T, key=jax.random.key(1), variance=variance)
    assert made.shape == x_T.shape
    assert abs(float(made.std()) - data.std) < 0.03  # 4000 draws: 0.006 of sampling error
    assert abs(float(made.mean())) < 0.03


def test_respaced_walk_tells_the_network_the_original_times():
    seen = []

    def denoise(x, t_B):
        jax.debug.callback(lambda t: seen.append(float(t[0])), t_B, ordered=True)
        return jax.tree.map(lambda a: 0.1 * a, x)

    x_T = {"a": jnp.ones((2, 3)), "b": jnp.ones((2, 1))}
    made = ddpm.sample(denoise, LINEAR, x_T, key=jax.random.key(0), num_steps=3)
    jax.effects_barrier()
    assert seen == [999.0, 500.0, 0.0]
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, x_T)


def test_gradient_is_finite():
    table = schedule.linear(num_steps=5)

    def loss(x):
        return ddpm.sample(lambda y, t: jnp.tanh(y), table, x, key=jax.random.key(0)).sum()

    gradient = jax.grad(loss)(jnp.ones((2, 3)))
    assert bool(jnp.isfinite(gradient).all()) and float(jnp.abs(gradient).max()) > 0


def test_errors_say_what_came():
    key, x = jax.random.key(0), jnp.ones((1, 2))
    with pytest.raises(ValueError, match="num_steps is 1001, expected 2 to 1000"):
        ddpm.sample(lambda x, t: x, LINEAR, x, key=key, num_steps=1001)
    with pytest.raises(ValueError, match="variance is 'learned'"):
        ddpm.sample(lambda x, t: x, LINEAR, x, key=key, num_steps=3, variance="learned")
