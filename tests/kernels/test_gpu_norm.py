"""Group norms on GPUs: the plain form's numbers and gradients, computed here, and who gets them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.kernels import dispatch
from foley_jax.kernels.gpu import norm
from foley_jax.runtime import partition

GROUPS, EPSILON = 4, 1e-5


def arguments(dtype=jnp.float32, mean=0.0):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 48, 8)) + mean, dtype)
    scale, bias = (jnp.asarray(rng.uniform(0.5, 1.0, 8), jnp.float32) for _ in range(2))
    return x, scale, bias, jnp.asarray(rng.standard_normal(x.shape), jnp.float32)


def values_and_gradients(form, dtype=jnp.float32, mean=0.0):
    """(y, gradients of x, scale and bias) for a gradient of y that is no constant."""
    *args, weights = arguments(dtype, mean)

    def loss(*args):
        y = form(*args, GROUPS, EPSILON)
        return jnp.vdot(weights, y.astype(jnp.float32)), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*args)
    return y, *gradients


@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_norms_in_one_pass_have_the_numbers_and_gradients_of_two(mean):
    """In float32; a mean of a thousand deviations costs both forms as many digits."""
    made = values_and_gradients(norm.group_norm, mean=mean)
    wanted = values_and_gradients(dispatch.group_norm, mean=mean)
    # the scale's gradient is a sum over all pixels
    for a, b, most in zip(made, wanted, (1e-3, 1e-3, 2e-3, 1e-3), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 if mean == 0.0 else most)


def test_in_half_precision_they_differ_by_its_rounding():
    made = values_and_gradients(norm.group_norm, jnp.bfloat16)
    wanted = values_and_gradients(dispatch.group_norm, jnp.bfloat16)
    assert [a.dtype for a in made] == [b.dtype for b in wanted]
    for a, b in zip(made, wanted, strict=True):
        np.testing.assert_allclose(*(x.astype(jnp.float32) for x in (a, b)), rtol=1e-2, atol=1e-2)


def test_nothing_but_the_input_and_numbers_of_channels_is_kept_for_gradients():
    """Of x in half precision no array of its size is kept in float32."""
    x, scale, bias, _ = arguments(jnp.bfloat16)
    form = lambda *args: norm.group_norm(*args, GROUPS, EPSILON)  # noqa: E731
    kept = jax.tree.leaves(jax.vjp(form, x, scale, bias)[1])
    assert {a.dtype for a in kept if a.size >= x.size} == {jnp.dtype(jnp.bfloat16)}


def test_gpus_get_norms_in_one_pass(monkeypatch):
    monkeypatch.setattr(partition, "on_gpu", lambda: True)
    args = arguments()[:3]

    def text():  # of a function made anew, which JAX has not traced before
        return str(jax.make_jaxpr(lambda *args: dispatch.group_norm(*args, GROUPS, EPSILON))(*args))

    assert "custom_vjp" in text()
    with dispatch.plain_forms():
        assert "custom_vjp" not in text()
    monkeypatch.undo()
    assert "custom_vjp" not in text()
