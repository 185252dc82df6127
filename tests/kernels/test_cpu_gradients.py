"""The written-out gradients are the library's."""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.kernels.cpu import dense, gradients


def _data(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes]


def _gradients(fn, x, kernel):
    out, vjp = jax.vjp(fn, x, kernel)
    (cotangent,) = _data(out.shape)
    return (out, *vjp(cotangent))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_and_gradients_equal_the_library(size, kernel_size, stride):
    x, kernel = _data((2, *size, 3), (kernel_size, kernel_size, 3, 4))
    pad = (kernel_size // 2,) * 2

    def library(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), (pad, pad), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    ours = _gradients(lambda x, k: gradients.conv2d(x, k, stride), x, kernel)
    for got, want in zip(ours, _gradients(library, x, kernel)):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-5)  # sums of ~1000 products


def test_dense_and_gradients_equal_matmul():
    x, kernel = _data((2, 5, 3), (3, 4))
    ours = _gradients(dense.dense, x, kernel)
    for got, want in zip(ours, _gradients(jnp.matmul, x, kernel)):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
