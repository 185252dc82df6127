"""Guidance terms against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from foley_jax.diffusion import gaussian, guidance, schedule

SCHEDULE = schedule.scaled_linear()
X = jnp.asarray(toys.DIFF_FOLEY["xT"])
T = jnp.array([500.0])


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.5, jnp.float32(1.0)])
def test_classifier_free_is_the_formula(scale):
    calls = []

    def network(x, t_B, context):
        calls.append(x.shape[0])
        return toys.latent_eps(x, t_B, context)

    got = guidance.classifier_free(network, toys.CONTEXT, toys.NULL, scale)(X, T)
    cond, uncond = (toys.latent_eps(X, T, c) for c in (toys.CONTEXT, toys.NULL))
    np.testing.assert_allclose(got, uncond + scale * (cond - uncond), atol=1e-5)
    assert calls == [1 if isinstance(scale, float) and scale == 1 else 2]


def test_batch_items_keep_their_own_context():
    contexts = jnp.concatenate([toys.CONTEXT, 3 * toys.CONTEXT])
    nulls = jnp.zeros_like(contexts)
    x, t = jnp.concatenate([X, 2 * X]), jnp.array([500.0, 20.0])
    both = guidance.classifier_free(toys.latent_eps, contexts, nulls, 3.0)(x, t)
    second = guidance.classifier_free(toys.latent_eps, contexts[1:], nulls[1:], 3.0)(x[1:], t[1:])
    np.testing.assert_allclose(both[1:], second, atol=1e-5)


def test_context_and_data_may_be_pytrees():
    def network(x, t_B, context):
        return {"a": x["a"] + context["shift"]}

    context = {"shift": jnp.ones((2, 1))}
    null = {"shift": jnp.zeros((2, 1))}
    got = guidance.classifier_free(network, context, null, 2.0)(
        {"a": jnp.zeros((2, 3))}, jnp.ones(2)
    )
    np.testing.assert_allclose(got["a"], np.full((2, 3), 2.0))


def test_double_guidance_adds_the_official_gradient():
    golden = toys.DIFF_FOLEY["toy_classifier/grad_t500"]
    denoise = guidance.double_guidance(
        lambda x, t: jnp.zeros_like(x), toys.latent_log_prob, SCHEDULE, 50.0
    )
    sigma = float(SCHEDULE.sqrt_one_minus_alphas_cumprod[500])
    assert toys.relative(denoise(X, T), -50.0 * sigma * golden) < 1e-5


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_adapters_turn_networks_into_eps_denoisers(prediction):
    noise, t_B = jnp.cos(X), jnp.array([12])
    x_t = gaussian.q_sample(SCHEDULE, X, t_B, noise)
    right = gaussian.target(SCHEDULE, X, t_B, noise, prediction)
    adapt = {"v": guidance.from_v, "x0": guidance.from_x0}[prediction]
    got = adapt(lambda x, t: right, SCHEDULE)(x_t, t_B.astype(jnp.float32))
    np.testing.assert_allclose(got, noise, atol=2e-5)


def test_guiding_v_equals_guiding_eps():
    def v_network(x, t_B, context):
        return toys.latent_eps(x, t_B, context)

    def eps_network(x, t_B, context):
        return guidance.from_v(lambda y, t: v_network(y, t, context), SCHEDULE)(x, t_B)

    contexts = (toys.CONTEXT, toys.NULL, 4.5)
    inside = guidance.from_v(guidance.classifier_free(v_network, *contexts), SCHEDULE)
    outside = guidance.classifier_free(eps_network, *contexts)
    np.testing.assert_allclose(inside(X, T), outside(X, T), atol=2e-5)


def test_gradient_through_guidance_is_finite():
    denoise = guidance.classifier_free(toys.latent_eps, toys.CONTEXT, toys.NULL, 4.5)
    denoise = guidance.double_guidance(denoise, toys.latent_log_prob, SCHEDULE, 50.0)
    gradient = jax.grad(lambda x: jnp.square(denoise(x, T)).sum())(X)
    assert bool(jnp.isfinite(gradient).all()) and float(jnp.abs(gradient).max()) > 0
