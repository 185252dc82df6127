"""3x3 convolutions with half of the multiplications, for CPUs.

Four neighbouring pixels of a row need six products instead of twelve; over the column the kernel
stays as it is. Both axes at once would need a quarter, and lose one digit more: this way the
rounding is three times that of the plain sum, 1e-6 of a standard deviation (mean square).
Source: Lavin & Gray, Fast Algorithms for Convolutional Neural Networks, 2016, F(4, 3).
B batch, H W space, C channels in, O channels out, I tiles of a row.
"""

from collections.abc import Sequence

import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.kernels.cpu import forms

_TILE = 4  # pixels that are made at once, of _TILE + 2
_OF_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_OF_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OF_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_PIXELS = 1024  # of a call; fewer do not pay for the kernel's transformation
_CHANNELS = 64  # in and out; fewer do not pay for the pixels' transformation
_WASTE = 1.15  # columns with the last tile's, over columns


def pays(x_BHWC: jax.Array, kernel_hwCO: jax.Array) -> bool:
    """Whether `conv3x3` takes this convolution of stride 1, and is faster."""
    b, h, w, c = x_BHWC.shape
    return (
        kernel_hwCO.shape[:2] == (3, 3)
        and x_BHWC.dtype == jnp.float32
        and b * h * w >= _PIXELS
        and min(c, kernel_hwCO.shape[3]) >= _CHANNELS
        and _TILE * -(-w // _TILE) <= _WASTE * w
    )


def conv3x3(x_BHWC: jax.Array, kernel_33CO: jax.Array) -> jax.Array:
    """[B, H, W, C] with a pixel of zeros on every side -> [B, H, W, O]."""
    columns = [kernel_33CO[:, i : i + 1] for i in range(3)]
    # fused with the products the sums would be made again and again
    kernels = lax.optimization_barrier([_sum(row, columns) for row in _OF_KERNEL])
    return forms.in_pieces(lambda x: _convolve(x, kernels), x_BHWC)


def _convolve(x: jax.Array, kernels: Sequence[jax.Array]) -> jax.Array:
    b, h, w, _ = x.shape
    pixels = _neighbours(x, -(-w // _TILE))
    inputs = lax.optimization_barrier([_sum(row, pixels) for row in _OF_INPUT])
    products = lax.optimization_barrier(
        [forms.over_a_column(v, kernel, 1, 1) for v, kernel in zip(inputs, kernels)]
    )
    y = jnp.stack([_sum(row, products) for row in _OF_OUTPUT], axis=3)
    return y.reshape(b, h, -1, y.shape[-1])[:, :, :w]  # [B, H, I, tile, O] -> [B, H, W, O]


def _neighbours(x_BHWC: jax.Array, tiles: int) -> list[jax.Array]:
    """The pixels of all tiles, and one before and after each: _TILE + 2 of [B, H, I, C]."""
    b, h, w, c = x_BHWC.shape
    x = jnp.pad(x_BHWC, ((0, 0), (0, 0), (1, _TILE * (tiles + 1) - w - 1), (0, 0)))
    x = x.reshape(b, h, tiles + 1, _TILE, c)
    return [x[:, :, i // _TILE : i // _TILE + tiles, i % _TILE] for i in range(_TILE + 2)]


def _sum(weights: Sequence[float], parts: Sequence[jax.Array]) -> jax.Array:
    terms = [part if w == 1 else w * part for w, part in zip(weights, parts) if w]
    return sum(terms[1:], terms[0])
