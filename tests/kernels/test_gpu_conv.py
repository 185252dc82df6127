"""Convolutions on GPUs: the plain form's numbers, computed here, and who gets them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.kernels import dispatch, plain
from foley_jax.kernels.gpu import conv
from foley_jax.runtime import partition

# name, x, kernel: into as many channels as there are, and into few
CASES = [
    ("temporal_conv", (2, 5, 7, 8), (3, 8, 6)),
    ("conv3d", (2, 5, 6, 4, 12), (3, 3, 3, 12, 3)),
    ("conv3d", (2, 5, 6, 4, 4), (3, 3, 3, 4, 4)),
]


@pytest.mark.parametrize(("name", "shape", "kernel_shape"), CASES)
def test_they_have_the_numbers_and_gradients_of_the_plain_form(name, shape, kernel_shape):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in (shape, kernel_shape))
    weights = jnp.asarray(rng.standard_normal((*shape[:-1], kernel_shape[-1])), jnp.float32)

    def of(form):
        form = getattr(form, name)
        loss = lambda *args: jnp.vdot(weights, form(*args))  # noqa: E731
        return form(x, kernel), *jax.grad(loss, argnums=(0, 1))(x, kernel)

    for made, wanted in zip(of(conv), of(plain), strict=True):
        np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("name", "shape", "kernel_shape"), CASES[:2])
def test_gpus_get_two_dimensional_ones(name, shape, kernel_shape, monkeypatch):
    monkeypatch.setattr(partition, "on_gpu", lambda: True)
    monkeypatch.setattr(partition, "on_cpu", lambda: False)
    form = getattr(dispatch, name)

    def in_two_dimensions():  # of a function made anew, which JAX has not traced before
        traced = jax.make_jaxpr(lambda *args: form(*args))(
            jnp.zeros(shape), jnp.zeros(kernel_shape)
        )
        found = [e for e in traced.jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
        return [e.outvars[0].aval.ndim for e in found] == [4]

    assert in_two_dimensions()
    with dispatch.plain_forms():
        assert not in_two_dimensions()
