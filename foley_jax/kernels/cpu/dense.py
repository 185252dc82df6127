"""Dense maps in the form that XLA:CPU computes fastest, with gradients that it computes fast.

A product of many rows goes to a library that takes 1.2 to 1.7 times as long as XLA:CPU's own code
(jaxlib 0.10.2), which is what a convolution of one tap over a sequence runs on. And a kernel's
gradient becomes a transposed product that runs several times slower than the forward pass.
C in, O out, R rows: all axes but the last.
"""

from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.runtime import partition

_ROWS = 1024  # fewer are as fast, or faster, as a product
_CHANNELS = 32


def pays(x: jax.Array, kernel_CO: jax.Array) -> bool:
    """Whether one CPU is faster with another form than a product."""
    rows, channels = x.size // max(1, x.shape[-1]), min(kernel_CO.shape)
    wide = x.dtype == kernel_CO.dtype == jnp.float32 and channels >= _CHANNELS
    return wide and rows >= _ROWS and partition.on_one_cpu()


def product(x: jax.Array, kernel_CO: jax.Array) -> jax.Array:
    """x @ kernel over the last axis: [..., C] -> [..., O]. Differentiate `dense` instead."""
    if not pays(x, kernel_CO):
        return jnp.matmul(x, kernel_CO)
    y = lax.conv_general_dilated(
        x.reshape(1, -1, x.shape[-1]),
        kernel_CO[None],
        (1,),
        ((0, 0),),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return y.reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def dense(x: jax.Array, kernel_CO: jax.Array) -> jax.Array:
    """x @ kernel over the last axis: [..., C] -> [..., O]."""
    return product(x, kernel_CO)


def _forward(x, kernel_CO):
    return product(x, kernel_CO), (x, kernel_CO)


def gradients(x: jax.Array, kernel_CO: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of both factors, from that of their product."""
    if pays(dy, kernel_CO):
        dx = product(dy, kernel_CO.T)
    else:
        dx = lax.dot_general(dy, kernel_CO, (((dy.ndim - 1,), (1,)), ((), ())))
    return dx, kernel_product(x, dy)


dense.defvjp(_forward, lambda residuals, dy: gradients(*residuals, dy))


def kernel_product(x: jax.Array, dy: jax.Array) -> jax.Array:
    """Sum over all rows of x (outer) dy: [..., C], [..., O] -> [C, O].

    x, which is stored, is the side that gets transposed in memory; jax's rule would take dy,
    with everything that makes it recomputed column by column.
    """
    x_RC = x.reshape(-1, x.shape[-1])
    return lax.dot_general(x_RC, dy.reshape(-1, dy.shape[-1]), (((0,), (0,)), ((), ())))


def dot_general(x: jax.Array, kernel_CO: jax.Array, dimension_numbers: Any, **options: Any):
    """`lax.dot_general` as `nnx.Linear` calls it; where that pays, `dense`."""
    if pays(x, kernel_CO):
        return dense(x, kernel_CO)
    return lax.dot_general(x, kernel_CO, dimension_numbers, **options)


def matmul(x: jax.Array, kernel_CO: jax.Array) -> jax.Array:
    """`dense` where that pays, else the library's product with the library's gradients."""
    return dot_general(x, kernel_CO, (((x.ndim - 1,), (0,)), ((), ())))
