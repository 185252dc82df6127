"""Parts that the forms of convolution for CPUs are made of.

B batch, H W space, C channels in, O channels out.
"""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.kernels import plain
from foley_jax.runtime import partition

_PIECE = 2**22  # bytes of the images of one piece: with what is made of them they fit the cache


def keeps_size(kernel_hwCO: jax.Array, padding: plain.Padding) -> bool:
    """Whether a convolution of stride 1 has an output of its input's H and W, and both sides have
    the same zeros."""
    return padding == tuple((n // 2, n // 2) for n in kernel_hwCO.shape[:2])


def plain_on_one_cpu(x: jax.Array, kernel_hwCO: jax.Array, padding: plain.Padding) -> bool:
    """Whether one CPU computes, in float32, what `keeps_size`."""
    floats = x.dtype == kernel_hwCO.dtype == jnp.float32
    return floats and keeps_size(kernel_hwCO, padding) and partition.on_one_cpu()


def library_gradients(
    convolution: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    dy: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of a convolution's input and kernel, from that of its output.

    Not by `jax.vjp`, which would trace (and count) the forward pass once more.
    """
    (dx,) = jax.linear_transpose(lambda x: convolution(x, kernel), x)(dy)
    (dkernel,) = jax.linear_transpose(lambda kernel: convolution(x, kernel), kernel)(dy)
    return dx, dkernel


def over_a_column(x: jax.Array, kernel: jax.Array, before: int, after: int) -> jax.Array:
    """A kernel [k, 1, C, O] with `before + after` = k - 1 rows of zeros: all pixels are one
    sequence, with W from row to row."""
    b, h, w, c = x.shape
    y = lax.conv_general_dilated(
        x.reshape(b, h * w, c),
        kernel[:, 0],
        (1,),
        ((before * w, after * w),),
        rhs_dilation=(w,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return y.reshape(b, h, w, -1)


def in_pieces(fn: Callable[[jax.Array], jax.Array], x_BHWC: jax.Array) -> jax.Array:
    """`fn` of a few images after the other, as many as stay in the cache."""
    b = x_BHWC.shape[0]
    most = max(1, _PIECE * b // (x_BHWC.size * x_BHWC.dtype.itemsize))
    size = next(n for n in range(min(b, most), 0, -1) if b % n == 0)
    if size == b:
        return fn(x_BHWC)
    y = lax.map(fn, x_BHWC.reshape(b // size, size, *x_BHWC.shape[1:]))
    return y.reshape(b, *y.shape[2:])
