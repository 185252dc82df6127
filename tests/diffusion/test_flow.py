"""Flow matching against closed forms, and its time grid against the official one."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diffusion import flow, guidance

NUMBERS = json.loads(
    (Path(__file__).parents[1] / "goldens" / "mmaudio" / "numbers.json").read_text()
)


def normal(seed, shape=(3, 5, 2)):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def decay(x, t_B):
    """dx/dt = -(1 + 2 t) x; its solution is x0 exp(-t - t^2)."""
    return jax.tree.map(lambda a: -(1 + 2 * t_B.reshape(-1, *(1,) * (a.ndim - 1))) * a, x)


def test_the_grid_is_the_official_one():
    assert flow.time_grid(25).tolist() == NUMBERS["euler grid 25"]


def test_the_grid_goes_both_ways():
    np.testing.assert_allclose(flow.time_grid(4, 1.0, 0.0), [1, 0.75, 0.5, 0.25, 0])


def test_a_path_goes_from_noise_to_data_at_its_velocity():
    noise, data = normal(0), normal(1)
    np.testing.assert_array_equal(flow.on_path(noise, data, jnp.zeros(3)), noise)
    np.testing.assert_array_equal(flow.on_path(noise, data, jnp.ones(3)), data)
    t_B, one = jnp.array([0.1, 0.4, 0.8]), jnp.ones(3)
    for min_sigma in (0.0, 0.1):
        path = lambda t: flow.on_path(noise, data, t, min_sigma)  # noqa: B023, E731
        _, speed = jax.jvp(path, (t_B,), (one,))
        np.testing.assert_allclose(speed, flow.velocity(noise, data, min_sigma), atol=1e-6)


def test_some_noise_is_left_at_the_end():
    noise, data = normal(0), normal(1)
    got = flow.on_path(noise, data, jnp.ones(3), 0.1)
    np.testing.assert_allclose(got, data + 0.1 * noise, atol=1e-6)


def test_the_loss_is_zero_for_the_true_velocity_and_the_square_beside_it():
    noise, data = {"a": normal(0), "b": normal(1, (3, 4))}, {"a": normal(2), "b": normal(3, (3, 4))}
    true = flow.velocity(noise, data)
    t_B = jnp.array([0.1, 0.5, 0.9])
    assert not flow.training_loss(lambda x, t: true, data, t_B, noise).any()
    off = {"a": true["a"] + jnp.array([1.0, 2.0, 0.0]).reshape(3, 1, 1), "b": true["b"] - 1.0}
    got = flow.training_loss(lambda x, t: off, data, t_B, noise)
    np.testing.assert_allclose(got, [2.0, 5.0, 1.0], rtol=1e-5)


def test_times_are_logit_normal():
    t_B = flow.draw_times(20000, jax.random.key(0), train=True, mean=0.5, scale=2.0)
    logit = jnp.log(t_B) - jnp.log1p(-t_B)
    assert abs(float(logit.mean()) - 0.5) < 0.05 and abs(float(logit.std()) - 2.0) < 0.05


def test_times_of_evaluation_are_the_quantiles():
    t_B = flow.draw_times(4, jax.random.key(0), train=False)
    np.testing.assert_allclose(t_B, 1 - t_B[::-1], atol=1e-6)
    assert (jnp.diff(t_B) > 0).all()
    np.testing.assert_array_equal(t_B, flow.draw_times(4, jax.random.key(1), train=False))


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_errors_fall_with_the_order_of_the_method(method, order):
    x = {"a": normal(0), "b": normal(1, (3, 4))}
    error = []
    for steps in (20, 40):
        got = flow.sample(decay, x, num_steps=steps, method=method)
        error.append(float(jnp.abs(got["a"] - x["a"] * np.exp(-2.0)).max()))
    assert 0.8 * 2**order < error[0] / error[1] < 1.3 * 2**order


def test_data_go_back_to_their_noise():
    x = normal(0)
    there = flow.sample(decay, x, num_steps=200, method="heun")
    back = flow.sample(decay, there, num_steps=200, method="heun", start=1.0, stop=0.0)
    np.testing.assert_allclose(back, x, atol=1e-3)


def test_steps_of_chosen_length_meet_the_solution():
    x = {"a": normal(0)}
    got = flow.sample_adaptive(decay, x, stop=0.9)
    np.testing.assert_allclose(got["a"], x["a"] * np.exp(-0.9 - 0.81), atol=1e-4)


def test_guidance_serves_a_flow():
    def network(x, t_B, context):
        return context["to"] - x

    context, null = {"to": jnp.ones((3, 1, 1))}, {"to": jnp.zeros((3, 1, 1))}
    x = jnp.zeros((3, 5, 1))
    got = flow.sample(guidance.classifier_free(network, context, null, 3.0), x, num_steps=1)
    np.testing.assert_allclose(got, np.full((3, 5, 1), 3.0), rtol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="num_steps is 0"):
        flow.time_grid(0)
    with pytest.raises(ValueError, match="'rk4'"):
        flow.sample(decay, normal(0), method="rk4")
