"""Convolutions with gradients that XLA:CPU computes fast; same numbers.

XLA:CPU turns a kernel gradient into a convolution that runs several times slower than the forward
pass, and the input gradient of a strided convolution into one over a grid full of zeros. The rules
here are written as plain products over pixels; on other platforms the library's own gradients are
used.
B batch, T frames, P pixels, H W space, C channels in, O channels out.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.kernels import patches, plain
from foley_jax.kernels.cpu import conv, dense, forms


@jax.custom_vjp
def temporal_conv3(x_BTPC: jax.Array, kernel_3CO: jax.Array) -> jax.Array:
    """Three neighbouring frames, zeros beyond the ends: [B, T, P, C] -> [B, T, P, O]."""

    def cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
        narrows = kernel.shape[1] >= 4 * kernel.shape[2]  # then the parts are cheap to add
        if narrows and dense.pays(x, plain.side_by_side(kernel)):
            return plain.add_to_neighbours(dense.product(x, plain.side_by_side(kernel)))
        return forms.over_a_column(x, kernel[:, None], 1, 1)

    return lax.platform_dependent(x_BTPC, kernel_3CO, cpu=cpu, default=plain.temporal_conv)


def _temporal_forward(x, kernel):
    return temporal_conv3(x, kernel), (x, kernel)


def _temporal_backward(residuals, dy):
    x, kernel_3CO = residuals
    count, c, o = kernel_3CO.shape
    parts = jax.ShapeDtypeStruct((*dy.shape[:-1], count * o), dy.dtype)
    (dparts,) = jax.linear_transpose(plain.add_to_neighbours, parts)(dy)
    dx, dkernel = dense.gradients(x, plain.side_by_side(kernel_3CO), dparts)
    return dx, dkernel.reshape(c, count, o).swapaxes(0, 1)  # [C, 3*O] -> [3, C, O]


temporal_conv3.defvjp(_temporal_forward, _temporal_backward)


def _convolve(x, kernel, stride):
    pad = tuple((n // 2, n // 2) for n in kernel.shape[:2])  # both sides, as torch
    return conv.conv2d(x, kernel, stride, pad)


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
            return _backward_by_blocks(x, kernel, dy)
        pad = ((kernel.shape[0] // 2,) * 2, (kernel.shape[1] // 2,) * 2)
        return conv.plain_gradients(x, kernel, dy, pad)

    return lax.platform_dependent(x, kernel, dy, cpu=cpu, default=library)


conv2d.defvjp(_conv_forward, _conv_backward)


def _backward_by_blocks(x, kernel, dy):
    """Both gradients of a stride-2 convolution, seen as one of stride 1 over 2x2 pixel blocks."""
    k = kernel.shape[0]
    # kernel index n reaches pixel 2i + n - k // 2; zeros before and after fill whole blocks
    before = (k // 2 + 1) // 2
    lead = 2 * before - k // 2
    after = -(lead + k) % 2
    size = (lead + k + after) // 2
    pad = ((before, size - 1 - before),) * 2

    def block_kernel(kernel):
        c, o = kernel.shape[2:]
        kernel = jnp.pad(kernel, ((lead, after), (lead, after), (0, 0), (0, 0)))
        kernel = kernel.reshape(size, 2, size, 2, c, o).transpose(0, 2, 1, 3, 4, 5)
        return kernel.reshape(size, size, 4 * c, o)

    def blocks(x):
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        return patches.space_to_depth(x, (2, 2))

    x_blocks, to_x = jax.vjp(blocks, x)
    kernel_blocks, to_kernel = jax.vjp(block_kernel, kernel)
    dx, dkernel = conv.plain_gradients(x_blocks, kernel_blocks, dy, pad)
    return to_x(dx)[0], to_kernel(dkernel)[0]
