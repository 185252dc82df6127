"""Gradients of convolutions over few pixels as two products; same numbers.

The library's gradient of the input turns the kernel over, C against O, which for images of few
pixels takes XLA:CPU many times as long as the sums themselves. A product contracts O as it lies.
B batch, H W space, C channels in, O channels out, K places of the kernel, R pixels of all images.
"""

import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.kernels import plain
from foley_jax.kernels.cpu import forms

_PIXELS = 512  # of all images; with more, the kernel is turned in no time


def pays(x_BHWC: jax.Array, kernel_hwCO: jax.Array, padding: plain.Padding) -> bool:
    """Whether one CPU is faster with these gradients, of a convolution of stride 1."""
    few = x_BHWC.shape[0] * x_BHWC.shape[1] * x_BHWC.shape[2] <= _PIXELS
    wide = kernel_hwCO.shape[:2] != (1, 1)
    return few and wide and forms.plain_on_one_cpu(x_BHWC, kernel_hwCO, padding)


def gradients(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of the input and the kernel, from that of the output; H and W stay."""
    kh, kw, c, o = kernel.shape
    dy_RO = dy.reshape(-1, o)
    kernel_KO = kernel.reshape(-1, o)
    parts_RK = lax.dot_general(dy_RO, kernel_KO, (((1,), (1,)), ((), ())))
    (dx,) = jax.linear_transpose(lambda x: _columns(x, kh, kw), x)(parts_RK)
    dkernel_KO = lax.dot_general(_columns(x, kh, kw), dy_RO, (((0,), (0,)), ((), ())))
    return dx, dkernel_KO.reshape(kernel.shape)


def _columns(x_BHWC: jax.Array, kh: int, kw: int) -> jax.Array:
    """Returns what the kernel meets at every pixel: [R, kh*kw*C]."""
    b, h, w, c = x_BHWC.shape
    x = jnp.pad(x_BHWC, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    places = [x[:, i : i + h, j : j + w] for i in range(kh) for j in range(kw)]
    return jnp.concatenate(places, axis=-1).reshape(b * h * w, kh * kw * c)
