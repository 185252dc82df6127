"""Convolutions with stride 2, or after doubling a image, as convolutions of stride 1, for CPUs.

A kernel of stride 2 meets the even and the odd rows and columns with other weights: four images
of a quarter's size, four small kernels. A doubled image shows a 3x3 kernel every pixel twice or
four times: per row and column of the doubled one a 2x2 kernel over the small image is enough,
with 4 instead of 9 multiplications a pixel.
B batch, H W space, C channels in, O channels out.
"""

import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.kernels import plain
from foley_jax.kernels.cpu import dense, forms

_PIXELS = 512  # of the smaller image
_CHANNELS = 64


def pays(x_BHWC: jax.Array, kernel_hwCO: jax.Array, padding: plain.Padding) -> bool:
    """Whether `of_input` takes this convolution of stride 2, and is faster."""
    b, h, w, c = x_BHWC.shape
    return (
        kernel_hwCO.shape[:2] == (3, 3)
        and x_BHWC.dtype == jnp.float32
        and all(pad in ((1, 1), (0, 1), (1, 0)) for pad in padding)
        and h % 2 == w % 2 == 0
        and b * h * w >= 4 * _PIXELS
        and c >= _CHANNELS
    )


def of_input(x_BHWC: jax.Array, kernel_33CO: jax.Array, padding: plain.Padding) -> jax.Array:
    """3x3, stride 2, 1 or 2 zeros along each even side: [B, H, W, C] -> [B, H/2, W/2, O]."""
    return forms.in_pieces(lambda x: _of_phases(x, kernel_33CO, padding), x_BHWC)


def _of_phases(x: jax.Array, kernel: jax.Array, padding: plain.Padding) -> jax.Array:
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c)
    total = 0.0
    for i in range(2):
        rows, row_reach = _taps(i, padding[0][0])
        for j in range(2):
            columns, column_reach = _taps(j, padding[1][0])
            phase = lax.optimization_barrier(x[:, :, i, :, j])  # copied once, not for every tap
            total += _small(phase, kernel[rows, columns], row_reach, column_reach)
    return total


def _taps(parity: int, before: int) -> tuple[slice, tuple[int, int]]:
    """Which of three taps meet rows of a parity, and how many such rows they reach back and on.

    Tap t of output i lies on row 2 i + t - before.
    """
    first = (parity + before) % 2
    offsets = [(t - before - parity) // 2 for t in range(first, 3, 2)]
    return slice(first, 3, 2), (-offsets[0], offsets[-1])


def _small(
    x: jax.Array, kernel: jax.Array, rows: tuple[int, int], columns: tuple[int, int]
) -> jax.Array:
    """A kernel of one row, or of two of which one reaches back or on; columns likewise."""
    if kernel.shape[:2] == (1, 1):
        return dense.product(x, kernel[0, 0])
    if kernel.shape[1] == 1:
        return forms.over_a_column(x, kernel, *rows)
    # two columns: one more than there was, see `conv`
    y = lax.conv_general_dilated(x, kernel, (1, 1), (rows, (1, 1)), dimension_numbers=plain.LAYOUT)
    start = 1 - columns[0]
    return y[:, :, start : start + x.shape[2]]


def max_pool(x_BHWC: jax.Array) -> jax.Array:
    """Maxima of 3x3, stride 2, zeros around; even H and W, nothing negative: [B, H/2, W/2, C]."""
    return _maxima(lax.optimization_barrier(_maxima(x_BHWC, 1)), 2)


def _maxima(x: jax.Array, axis: int) -> jax.Array:
    """Returns the maxima of every other place of an axis and its two neighbours."""
    pairs = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
    even, odd = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in range(2))
    shift = [(1, -1, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    before = lax.pad(odd, jnp.zeros((), x.dtype), shift)
    return jnp.maximum(jnp.maximum(before, even), odd)


def doubling_pays(x_BHWC: jax.Array, kernel_hwCO: jax.Array) -> bool:
    """Whether `of_doubled` takes this kernel, and is faster."""
    b, h, w, _ = x_BHWC.shape
    return kernel_hwCO.shape[:2] == (3, 3) and b * h * w >= _PIXELS


def of_doubled(x_BHWC: jax.Array, kernel_33CO: jax.Array) -> jax.Array:
    """3x3 over every pixel repeated 2x2, zeros on every side: [B, H, W, C] -> [B, 2H, 2W, O]."""
    b, h, w, _ = x_BHWC.shape
    # [3, 3, C, O] -> of either row parity [2, 3, C, O] -> and of either column parity [2, 2, C, O]
    kernels = [
        half.swapaxes(0, 1)
        for rows in _halves(kernel_33CO)
        for half in _halves(rows.swapaxes(0, 1))
    ]
    y = lax.conv_general_dilated(
        x_BHWC,
        jnp.concatenate(kernels, axis=-1),
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=plain.LAYOUT,
    )
    y = y.reshape(b, h + 1, w + 1, 2, 2, -1)
    # a parity's kernel reaches one pixel back (even) or on (odd)
    rows = [
        jnp.stack([y[:, i : i + h, j : j + w, i, j] for j in range(2)], axis=3) for i in range(2)
    ]
    # 2 of [B, H, W, 2, O] -> [B, H, 2, W, 2, O]
    return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, -1)


def _halves(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Along the first axis: the two weights of even doubled rows, and of odd ones."""
    first, middle, last = kernel
    return jnp.stack([first, middle + last]), jnp.stack([first + middle, last])
