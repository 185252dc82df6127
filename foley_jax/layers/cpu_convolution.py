"""2-D convolution in the form that XLA:CPU computes fastest; same numbers.

XLA:CPU gives convolutions that keep H and W to a library that takes up to 2.5 times as long as
its own code (jaxlib 0.10.2; layers of many channels and few pixels suffer most). Its own code is
what runs on sequences, and where padding makes one column more than there was. Large pictures on
one device have better forms still: `cpu_winograd` and `cpu_phases`.
B batch, H W space, C channels in, O channels out.
"""

import functools

import jax
from jax import lax

from foley_jax import sharding
from foley_jax.layers import cpu_forms, cpu_phases, cpu_winograd


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(
    x_BHWC: jax.Array,
    kernel_hwCO: jax.Array,
    stride: int = 1,
    padding: cpu_forms.Padding = ((0, 0), (0, 0)),
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
    if stride == 2:
        if not (sharding.on_one_cpu() and cpu_phases.pays(x_BHWC, kernel_hwCO, padding)):
            return library(x_BHWC, kernel_hwCO)
        cpu = functools.partial(cpu_phases.of_input, padding=padding)
    elif stride != 1 or not keeps_size or (rows, columns) == (1, 1):
        return library(x_BHWC, kernel_hwCO)
    elif columns == 1:
        cpu = functools.partial(cpu_forms.over_a_column, before=rows // 2, after=rows // 2)
    elif sharding.on_one_cpu() and cpu_winograd.pays(x_BHWC, kernel_hwCO):
        cpu = cpu_winograd.conv3x3
    else:
        cpu = _with_one_more
    return lax.platform_dependent(x_BHWC, kernel_hwCO, cpu=cpu, default=library)


def _library(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: cpu_forms.Padding
) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=cpu_forms.LAYOUT
    )


def _with_one_more(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """One row or column more, cut away again; of the longer axis, which loses least by it."""
    height, width = x.shape[1:3]
    top, left = (n // 2 for n in kernel.shape[:2])
    if height > width:
        return _library(x, kernel, padding=((top, top + 1), (left, left)))[:, :height]
    return _library(x, kernel, padding=((top, top), (left, left + 1)))[:, :, :width]


def gradients(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, stride: int, padding: cpu_forms.Padding
) -> tuple[jax.Array, jax.Array]:
    """Of `conv2d`'s input and kernel, from that of its output."""
    # not `jax.vjp`, which would trace (and count) the forward pass once more
    library = functools.partial(_library, stride=stride, padding=padding)
    (dx,) = jax.linear_transpose(lambda x: library(x, kernel), x)(dy)
    (dkernel,) = jax.linear_transpose(lambda kernel: library(x, kernel), kernel)(dy)
    return dx, dkernel


def _forward(x, kernel, stride, padding):
    return conv2d(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, residuals, dy):
    return gradients(*residuals, dy, stride, padding)


conv2d.defvjp(_forward, _backward)
