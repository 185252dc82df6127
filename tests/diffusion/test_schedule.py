"""Noise tables against the official ones, and values between steps."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diffusion import schedule
from foley_jax.diffusion.samplers import ddim, ddpm, dpm_multistep

GOLDENS = Path(__file__).parents[1] / "goldens"
BUFFERS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)


@pytest.mark.parametrize("name", BUFFERS)
def test_scaled_linear_equals_diff_foley(name):
    table = getattr(schedule.scaled_linear(), name)
    assert table.dtype == np.float32 and table.shape == (1000,)
    np.testing.assert_array_equal(table, np.load(GOLDENS / "diff_foley" / "schedule.npz")[name])


@pytest.mark.parametrize("respacing", ["base_1000", "base_50", "base_ddim25"])
def test_linear_and_respaced_equal_mm_diffusion(respacing):
    golden = np.load(GOLDENS / "mm_diffusion" / "schedules.npz")
    made = schedule.linear()
    if respacing == "base_50":
        made = schedule.respace(made, ddpm.even_steps(made, 50))
    elif respacing == "base_ddim25":
        made = schedule.respace(made, ddim.strided_steps(made, 25, 0))
    np.testing.assert_array_equal(made.model_times, golden[f"{respacing}/timestep_map"])
    for name in BUFFERS:
        if name != "posterior_log_variance_clipped":  # clipped differently; not used here
            want = golden[f"f64/{respacing}/{name}"]
            np.testing.assert_allclose(getattr(made, name), want, rtol=2e-6, atol=1e-9)


def test_continuous_values_equal_the_official_solver():
    golden = np.load(GOLDENS / "diff_foley" / "schedule.npz")
    table = schedule.scaled_linear()
    times = dpm_multistep.model_times(table, 25)
    np.testing.assert_allclose(times, golden["dpm/t_input"], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(table.log_alpha_at(times), golden["dpm/log_alpha"], atol=1e-6)
    np.testing.assert_allclose(table.alpha_sigma_at(times)[1], golden["dpm/sigma"], atol=1e-6)
    # the official 1 - exp(2 log_alpha) loses digits at the last time; 3.6e-6 relative there
    np.testing.assert_allclose(table.lambda_at(times), golden["dpm/lambda"], rtol=1e-5)


def test_between_steps_is_exact_to_float32():
    table = schedule.scaled_linear()
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    log_alpha = 0.5 * np.cumsum(np.log1p(-betas))
    times = np.array([0.0, 0.25, 39.96, 500.5, 998.75, 999.0])
    exact = np.interp(times, np.arange(1000), log_alpha)
    half_log_snr = exact - 0.5 * np.log(-np.expm1(2 * exact))
    np.testing.assert_allclose(table.lambda_at(times), half_log_snr, rtol=3e-6, atol=3e-6)
    alpha, sigma = table.alpha_sigma_at(jnp.float32(times))
    np.testing.assert_allclose(alpha**2 + sigma**2, np.ones(6), rtol=1e-6)


def test_integer_times_read_the_tables():
    table = schedule.cosine(50)
    alpha, sigma = table.alpha_sigma_at(jnp.arange(50))
    np.testing.assert_allclose(alpha, table.sqrt_alphas_cumprod, atol=1e-6)
    np.testing.assert_allclose(sigma, table.sqrt_one_minus_alphas_cumprod, atol=1e-6)


def test_cosine_follows_its_formula():
    table = schedule.cosine(1000)
    t = np.arange(1, 901) / 1000  # before the largest betas are clipped
    curve = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(table.alphas_cumprod[:900], curve, atol=1e-6)
    assert table.betas.max() == np.float32(0.999)


def test_schedule_is_a_pytree_of_host_arrays():
    table = schedule.linear(num_steps=10)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(table))
    got = jax.jit(lambda s, t: s.lambda_at(t))(table, jnp.float32(3.5))
    np.testing.assert_allclose(got, table.lambda_at(3.5), rtol=1e-6)
    assert np.isfinite(jax.grad(table.lambda_at)(3.5))


def test_errors_say_what_came():
    with pytest.raises(ValueError, match="numbers in"):
        schedule.from_betas(np.array([0.1, 1.0]))
    with pytest.raises(ValueError, match="increasing indices below 10"):
        schedule.respace(schedule.linear(num_steps=10), [0, 5, 10])
    with pytest.raises(ValueError, match="increasing"):
        schedule.respace(schedule.linear(num_steps=10), [5, 5, 7])
