"""DDIM against Diff-Foley's and MM-Diffusion's samplers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from foley_jax.diffusion import guidance, schedule
from foley_jax.diffusion.samplers import ddim

DIFF_FOLEY = schedule.scaled_linear()
MM_DIFFUSION = schedule.linear()


@pytest.mark.parametrize(("case", "alignment"), [("cfg4.5", 0.0), ("cfg4.5_cg50", 50.0)])
def test_equals_diff_foley(case, alignment):
    denoise = guidance.classifier_free(toys.latent_eps, toys.CONTEXT, toys.NULL, 4.5)
    if alignment:
        denoise = guidance.double_guidance(denoise, toys.latent_log_prob, DIFF_FOLEY, alignment)
    x_T = jnp.asarray(toys.DIFF_FOLEY["xT"])
    got = jax.jit(lambda x: ddim.sample(denoise, DIFF_FOLEY, x, num_steps=25))(x_T)
    assert toys.relative(got, toys.DIFF_FOLEY[f"ddim25_{case}/x0"]) < 1e-5
    steps = ddim.strided_steps(DIFF_FOLEY, 25, 1)[::-1]
    np.testing.assert_array_equal(steps, toys.DIFF_FOLEY[f"ddim25_{case}/model_times"])


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_steps_equal_mm_diffusion(eta):
    run = "ddim25" if eta == 0 else "ddim25_eta0.5"
    steps = ddim.strided_steps(MM_DIFFUSION, 25, 0)
    abar = np.append(1.0, MM_DIFFUSION.alphas_cumprod[steps]).astype(np.float32)
    noises = toys.pair_noises(run)
    x = next(noises)

    @jax.jit
    def step(x, time, now, previous, noise):
        eps = toys.pair_eps(x, jnp.full((2,), time))
        return ddim.step(x, eps, now, previous, noise, eta=eta, clip_x0=True)

    for i in range(24, -1, -1):
        x = step(x, np.float32(steps[i]), abar[i + 1], abar[i], next(noises))
    for name, got in x.items():
        np.testing.assert_allclose(got, toys.MM_DIFFUSION[f"{run}/{name}"], atol=1e-5)


def test_scan_equals_mm_diffusion_on_a_dict():
    x_T = next(toys.pair_noises("ddim25"))
    got = ddim.sample(toys.pair_eps, MM_DIFFUSION, x_T, num_steps=25, offset=0, clip_x0=True)
    for name in x_T:
        np.testing.assert_allclose(got[name], toys.MM_DIFFUSION[f"ddim25/{name}"], atol=1e-5)


def test_noise_comes_from_the_key_and_only_with_eta():
    table = schedule.linear(num_steps=20)
    x_T = jnp.ones((3, 4))

    def run(key, eta):
        return ddim.sample(
            lambda x, t: 0.5 * x, table, x_T, num_steps=5, eta=eta, key=key, offset=0
        )

    keys = jax.random.key(1), jax.random.key(2)
    np.testing.assert_array_equal(run(keys[0], 0.0), run(keys[1], 0.0))
    assert not np.allclose(run(keys[0], 1.0), run(keys[1], 1.0))
    np.testing.assert_array_equal(run(keys[0], 1.0), run(keys[0], 1.0))


def test_gradient_is_finite():
    table = schedule.linear(num_steps=20)

    def loss(x):
        return ddim.sample(lambda y, t: jnp.tanh(y), table, x, num_steps=4).sum()

    gradient = jax.grad(loss)(jnp.ones((2, 3)))
    assert bool(jnp.isfinite(gradient).all()) and float(jnp.abs(gradient).max()) > 0


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="do not fit a schedule of 1000 steps"):
        ddim.sample(lambda x, t: x, DIFF_FOLEY, jnp.ones((1, 2)), num_steps=1000)
    with pytest.raises(ValueError, match="give key="):
        ddim.sample(lambda x, t: x, DIFF_FOLEY, jnp.ones((1, 2)), num_steps=10, eta=1.0)
