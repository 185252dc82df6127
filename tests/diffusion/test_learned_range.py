"""Learned variances against MM-Diffusion's super-resolution diffusion and closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from foley_jax.diffusion import gaussian, learned_variance, schedule
from foley_jax.diffusion.samplers import ddim

LINEAR = schedule.linear()
ATOL = 1e-5


def golden(name):
    """Images of a golden, channels last."""
    return np.moveaxis(toys.MM_DIFFUSION[name], 1, -1)


@pytest.mark.slow
def test_losses_equal_mm_diffusion():
    low = toys.drawn("loss.sr_low", 4).clip(-1, 1)
    squares_B, bound_B = learned_variance.training_losses(
        LINEAR,
        lambda x, t_B: toys.image_output(x, low, t_B),
        toys.drawn("loss.sr_x", 16).clip(-1, 1),
        jnp.asarray([0, 250, 999, 1]),
        toys.drawn("loss.sr_noise", 16),
    )
    for name, got in {"mse": squares_B, "vb": bound_B, "loss": squares_B + bound_B}.items():
        np.testing.assert_allclose(got, toys.MM_DIFFUSION[f"loss_sr/{name}"], rtol=2e-5)


@pytest.mark.parametrize("run", ["sr_ddpm25", "sr_ddpm25_fixednoise"])
def test_ancestral_steps_equal_mm_diffusion(run):
    """The official loop adds a noise that it is given again at every step."""
    table = schedule.respace(LINEAR, ddim.strided_steps(LINEAR, 25, 0))
    low = toys.drawn("sr.low", 8).clip(-1, 1)

    @jax.jit
    def step(x, index_B, noise):
        output = toys.image_output(x, low, jnp.asarray(table.model_times)[index_B])
        return learned_variance.step(table, x, output, index_B, noise, clip_x0=True)

    fixed = run.endswith("fixednoise")
    names = ["sr.noise"] * 26 if fixed else [f"{run}.noise{i}" for i in range(26)]
    x = toys.drawn(names[0], 32)
    for i in range(25):
        noise = toys.drawn(names[i + 1], 32)
        x = step(x, jnp.full((4,), 24 - i), noise)
    np.testing.assert_allclose(x, golden(f"{run}/out"), atol=ATOL)


def test_ddim_of_the_noise_half_equals_mm_diffusion():
    low = toys.drawn("sr.low", 8).clip(-1, 1)
    denoise = learned_variance.eps_only(lambda x, t_B: toys.image_output(x, low, t_B), LINEAR)
    run = jax.jit(lambda x: ddim.sample(denoise, LINEAR, x, num_steps=25, offset=0, clip_x0=True))
    np.testing.assert_allclose(run(toys.drawn("sr.noise", 32)), golden("sr_ddim25/out"), atol=ATOL)
    steps = ddim.strided_steps(LINEAR, 25, 0)[::-1]
    np.testing.assert_array_equal(steps, toys.MM_DIFFUSION["sr_ddim25/t_model"])


def test_variance_lies_between_its_bounds():
    index_B = jnp.asarray([0, 1, 500, 999])
    beta = LINEAR.betas[np.asarray(index_B)]
    posterior = LINEAR.posterior_variance[np.asarray([1, 1, 500, 999])]
    for value, want in ((-1.0, posterior), (1.0, beta), (0.0, np.sqrt(beta * posterior))):
        got = learned_variance.log_variance(LINEAR, jnp.full((4, 1), value), index_B)
        np.testing.assert_allclose(got[:, 0], np.log(want), rtol=1e-5)


def test_likelihoods_of_all_pixel_values_sum_to_one():
    pixels = (np.arange(256) / 127.5 - 1).astype(np.float32)
    for mean, std in ((0.1, 0.05), (-0.98, 0.02), (0.5, 1.0)):
        log_mass = learned_variance.discretised_log_likelihood(
            jnp.asarray(pixels), jnp.float32(mean), jnp.float32(math.log(std))
        )
        # neighbouring bins meet at half-pixel borders
        np.testing.assert_allclose(np.exp(log_mass).sum(), 1.0, atol=1e-4)


def test_likelihood_equals_a_narrow_integral():
    erf = np.vectorize(math.erf)
    x, mean, std = np.float32(0.2), 0.25, 0.1
    edges = (np.array([x + learned_variance.PIXEL, x - learned_variance.PIXEL]) - mean) / std
    upper, lower = 0.5 * (1 + erf(edges / math.sqrt(2)))
    got = learned_variance.discretised_log_likelihood(
        jnp.asarray(x), jnp.float32(mean), jnp.float32(math.log(std))
    )
    np.testing.assert_allclose(np.exp(got), upper - lower, rtol=5e-3)  # tanh for erf


def test_divergence_of_equal_and_of_unit_normals():
    zero = jnp.zeros(3)
    np.testing.assert_allclose(learned_variance.gaussian_kl(zero, zero, zero, zero), 0.0)
    got = learned_variance.gaussian_kl(zero, zero, zero + 2.0, zero)
    np.testing.assert_allclose(got, 2.0, rtol=1e-6)  # (mean difference)^2 / 2
    got = learned_variance.gaussian_kl(zero, zero + math.log(4.0), zero, zero)
    np.testing.assert_allclose(got, 0.5 * (4 - 1 - math.log(4.0)), rtol=1e-6)


def test_bound_trains_the_variance_only():
    key = jax.random.key(0)
    x0 = jnp.tanh(jax.random.normal(key, (2, 4, 4, 3)))
    noise, t_B = jax.random.normal(key, x0.shape), jnp.asarray([0, 600])

    def terms(parameters):
        def network(x, t):
            eps = parameters["eps"] * x
            return jnp.concatenate([eps, parameters["values"] * jnp.ones_like(x)], axis=-1)

        return learned_variance.training_losses(LINEAR, network, x0, t_B, noise)

    parameters = {"eps": jnp.float32(0.5), "values": jnp.float32(0.2)}
    square, bound = jax.jit(jax.jacobian(lambda p: [term.sum() for term in terms(p)]))(parameters)
    assert square["values"] == 0 and abs(square["eps"]) > 0
    assert bound["eps"] == 0 and abs(bound["values"]) > 0
    assert all(np.isfinite(g) for g in (*square.values(), *bound.values()))


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_what_is_predicted_makes_no_difference_to_who_is_right(prediction):
    key, values_key = jax.random.split(jax.random.key(0))
    x0 = jnp.tanh(jax.random.normal(key, (3, 4, 4, 3)))
    noise, t_B = jax.random.normal(key, x0.shape), jnp.asarray([0, 300, 990])
    values = jax.random.uniform(values_key, x0.shape)

    def right(prediction):
        wanted = gaussian.target(LINEAR, x0, t_B, noise, prediction)
        return lambda x, t: jnp.concatenate([wanted, values], axis=-1)

    def losses(prediction):
        return learned_variance.training_losses(
            LINEAR, right(prediction), x0, t_B, noise, prediction
        )

    squares_B, bound_B = losses(prediction)
    np.testing.assert_array_equal(squares_B, 0.0)
    np.testing.assert_allclose(bound_B, losses("eps")[1], rtol=1e-3, atol=1e-5)
    denoise = learned_variance.eps_only(right(prediction), LINEAR, prediction)
    x_t = gaussian.q_sample(LINEAR, x0, t_B, noise)
    np.testing.assert_allclose(denoise(x_t, t_B.astype(jnp.float32)), noise, atol=2e-4)


def test_gaussian_data_come_out_with_their_spread():
    table = schedule.linear(num_steps=200, beta_start=5e-4, beta_end=0.1)
    data = toys.Gaussian(table)

    def network(x, t_B):
        eps = data.denoise(x, t_B)
        return jnp.concatenate([eps, jnp.zeros_like(eps)], axis=-1)

    x_T = jax.random.normal(jax.random.key(0), (4000, 1))
    made = jax.jit(
        lambda x, key: learned_variance.sample(network, table, x, key=key, num_steps=100)
    )(x_T, jax.random.key(1))
    assert made.shape == x_T.shape
    assert abs(float(made.std()) - data.std) < 0.03  # 4000 draws: 0.006 of sampling error
    assert abs(float(made.mean())) < 0.03


def test_odd_channels_are_refused():
    with pytest.raises(ValueError, match="gives 3 channels"):
        learned_variance.split(jnp.zeros((1, 2, 2, 3)))
