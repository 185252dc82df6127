"""Dense maps and convolutions with gradients that XLA:CPU computes fast; same numbers.

XLA:CPU turns a kernel gradient into a convolution or a transposed product that runs several times
slower than the forward pass, and the input gradient of a strided convolution into one over a grid
full of zeros. The rules here are written as plain products over pixels; on other platforms the
library's own gradients are used.
B batch, H W space, C channels in, O channels out.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

_LAYOUT = ("NHWC", "HWIO", "NHWC")


@jax.custom_vjp
def dense(x: jax.Array, kernel_CO: jax.Array) -> jax.Array:
    """x @ kernel over the last axis: [..., C] -> [..., O]."""
    return jnp.matmul(x, kernel_CO)


def _dense_forward(x, kernel_CO):
    return dense(x, kernel_CO), (x, kernel_CO)


def _dense_backward(residuals, dy):
    x, kernel_CO = residuals
    dx = lax.dot_general(dy, kernel_CO, (((dy.ndim - 1,), (1,)), ((), ())))
    return dx, _kernel_product(x, dy)


def _kernel_product(x, dy):
    """Sum over all pixels of x (outer) dy, [..., C], [..., O] -> [C, O].

    x, which is stored, is the side that gets transposed in memory; jax's rule would take dy,
    with everything that makes it recomputed column by column.
    """
    x_RC = x.reshape(-1, x.shape[-1])
    return lax.dot_general(x_RC, dy.reshape(-1, dy.shape[-1]), (((0,), (0,)), ((), ())))


dense.defvjp(_dense_forward, _dense_backward)


def _convolve(x, kernel, stride):
    pad = [(n // 2, n // 2) for n in kernel.shape[:2]]  # both sides, as torch
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, pad, dimension_numbers=_LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d(x_BHWC: jax.Array, kernel_hwCO: jax.Array, stride: int = 1) -> jax.Array:
    """Convolution with an odd kernel, k // 2 zeros on every side, stride 1 or 2."""
    return _convolve(x_BHWC, kernel_hwCO, stride)


def _conv_forward(x, kernel, stride):
    return _convolve(x, kernel, stride), (x, kernel)


def _conv_backward(stride, residuals, dy):
    x, kernel = residuals

    def library(x, kernel, dy):
        return jax.vjp(functools.partial(_convolve, stride=stride), x, kernel)[1](dy)

    def cpu(x, kernel, dy):
        if stride == 2:
            return jax.vjp(_convolve_blocks, x, kernel)[1](dy)
        dx = jax.vjp(lambda x: _convolve(x, kernel, 1), x)[1](dy)[0]
        return dx, _kernel_gradient(x, dy, kernel.shape)

    return lax.platform_dependent(x, kernel, dy, cpu=cpu, default=library)


conv2d.defvjp(_conv_forward, _conv_backward)


def _kernel_gradient(x, dy, shape):
    """Gradient of a stride-1 kernel as one product per kernel row."""
    kh, kw, c, o = shape
    h, w = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (kh // 2,) * 2, (0, 0), (0, 0)))
    dy = jnp.pad(dy, ((0, 0), (0, 0), (kw // 2,) * 2, (0, 0)))
    # column j of the kernel pairs x[w + j - kw // 2] with dy[w]
    shifts = [dy[:, :, kw - 1 - j : kw - 1 - j + w] for j in range(kw)]
    dy = jnp.concatenate(shifts, axis=-1)  # [B, H, W, kw*O]
    rows = [_kernel_product(x[:, i : i + h], dy) for i in range(kh)]
    # [kh, C, kw*O] -> [kh, kw, C, O]
    return jnp.stack(rows).reshape(kh, c, kw, o).swapaxes(1, 2)


def _convolve_blocks(x, kernel):
    """The stride-2 convolution as one of stride 1 over 2x2 pixel blocks."""
    b, h, w, c = x.shape
    k, o = kernel.shape[0], kernel.shape[-1]
    x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
    h2, w2 = -(-h // 2), -(-w // 2)
    # [B, 2h, 2w, C] -> [B, h, w, 2*2*C]
    x = x.reshape(b, h2, 2, w2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, h2, w2, 4 * c)
    # kernel index n reaches pixel 2i + n - k // 2; before it, zeros up to a whole block
    before = (k // 2 + 1) // 2
    lead = 2 * before - k // 2
    after = -(-(lead + k) // 2) * 2 - lead - k
    kernel = jnp.pad(kernel, ((lead, after), (lead, after), (0, 0), (0, 0)))
    n = kernel.shape[0] // 2
    kernel = kernel.reshape(n, 2, n, 2, c, o).transpose(0, 2, 1, 3, 4, 5).reshape(n, n, 4 * c, o)
    pad = (before, n - 1 - before)
    return lax.conv_general_dilated(x, kernel, (1, 1), (pad, pad), dimension_numbers=_LAYOUT)
