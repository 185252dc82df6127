"""2-D convolution in the form that XLA:CPU computes fastest; same numbers.

XLA:CPU gives convolutions that keep H and W to a library that takes up to 2.5 times as long as
its own code (jaxlib 0.10.2; layers of many channels and few pixels suffer most). Its own code is
what runs on sequences, and where padding makes one column more than there was.
B batch, H W space, C channels in, O channels out.
"""

import functools

import jax
from jax import lax

Padding = tuple[tuple[int, int], tuple[int, int]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(
    x_BHWC: jax.Array, kernel_hwCO: jax.Array, stride: int = 1, padding: Padding = ((0, 0), (0, 0))
) -> jax.Array:
    """`lax.conv_general_dilated` of channels-last pictures, and its gradients.

    Args:
      x_BHWC, kernel_hwCO: of one dtype.
      stride: of both axes.
      padding: zeros before and after, of H and of W.
    Returns:
      [B, H', W', O], dtype of x.
    """
    library = functools.partial(_library, stride=stride, padding=padding)
    rows, columns = kernel_hwCO.shape[:2]
    keeps_size = padding == ((rows // 2, rows // 2), (columns // 2, columns // 2))
    if stride != 1 or not keeps_size or (rows, columns) == (1, 1):
        return library(x_BHWC, kernel_hwCO)
    cpu = over_a_column if columns == 1 else _with_one_more
    return lax.platform_dependent(x_BHWC, kernel_hwCO, cpu=cpu, default=library)


def _library(x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: Padding) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def over_a_column(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A kernel [k, 1, C, O] of odd k: all pixels are one sequence, with W from row to row."""
    b, h, w, c = x.shape
    reach = kernel.shape[0] // 2 * w
    y = lax.conv_general_dilated(
        x.reshape(b, h * w, c),
        kernel[:, 0],
        (1,),
        ((reach, reach),),
        rhs_dilation=(w,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return y.reshape(b, h, w, -1)


def _with_one_more(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """One row or column more, cut away again; of the longer axis, which loses least by it."""
    height, width = x.shape[1:3]
    top, left = (n // 2 for n in kernel.shape[:2])
    if height > width:
        return _library(x, kernel, padding=((top, top + 1), (left, left)))[:, :height]
    return _library(x, kernel, padding=((top, top), (left, left + 1)))[:, :, :width]


def _forward(x, kernel, stride, padding):
    return conv2d(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, residuals, dy):
    # not `jax.vjp`, which would trace (and count) the forward pass once more
    x, kernel = residuals
    library = functools.partial(_library, stride=stride, padding=padding)
    (dx,) = jax.linear_transpose(lambda x: library(x, kernel), x)(dy)
    (dkernel,) = jax.linear_transpose(lambda kernel: library(x, kernel), kernel)(dy)
    return dx, dkernel


conv2d.defvjp(_forward, _backward)
