"""Group norms on GPUs: the plain form's numbers, computed here, and who gets them."""

import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.kernels import dispatch, plain
from foley_jax.kernels.gpu import norm
from foley_jax.runtime import partition


@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_norms_in_one_pass_have_the_numbers_and_gradients_of_two(mean):
    """In float32; a mean of a thousand deviations costs both forms as many digits."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 48, 8)) + mean, jnp.float32)
    weights = jnp.asarray(rng.standard_normal((2, 48, 8)), jnp.float32)

    def loss(form, x):
        y, variance = form(x, 4)
        return jnp.vdot(weights, y * lax.rsqrt(variance + 1e-5)[:, None]), variance

    made, wanted = (
        jax.jit(jax.value_and_grad(functools.partial(loss, form.centred), has_aux=True))(x)
        for form in (norm, plain)
    )
    for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 if mean == 0.0 else 1e-3)


def test_gpus_get_norms_in_one_pass(monkeypatch):
    monkeypatch.setattr(partition, "on_gpu", lambda: True)
    x = jax.ShapeDtypeStruct((2, 48, 8), jnp.float32)
    text = lambda: str(jax.make_jaxpr(lambda x: dispatch.centred(x, 4))(x))  # noqa: E731
    assert "max " in text()
    with dispatch.plain_forms():
        assert "max " not in text()
    monkeypatch.undo()
    assert "max " not in text()
