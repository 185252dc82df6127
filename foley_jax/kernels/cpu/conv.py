"""2-D convolution in the form that XLA:CPU computes fastest; same numbers.

XLA:CPU gives convolutions that keep H and W to a library that takes up to 2.5 times as long as
its own code (jaxlib 0.10.2; layers of many channels and few pixels suffer most). Its own code is
what runs on sequences, and where padding makes one column more than there was. Large images on
one device have better forms still: `winograd` and `strided`.
B batch, H W space, C channels in, O channels out.
"""

from collections.abc import Callable
import functools

import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.kernels import plain
from foley_jax.kernels.cpu import columns as cpu_columns
from foley_jax.kernels.cpu import dense, forms, strided
from foley_jax.kernels.cpu import winograd as cpu_winograd
from foley_jax.runtime import partition


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(
    x_BHWC: jax.Array,
    kernel_hwCO: jax.Array,
    stride: int = 1,
    padding: plain.Padding = ((0, 0), (0, 0)),
) -> jax.Array:
    """`lax.conv_general_dilated` of channels-last images, and its gradients.

    Args:
      x_BHWC, kernel_hwCO: of one dtype.
      stride: of both axes.
      padding: zeros before and after, of H and of W.
    Returns:
      [B, H', W', O], dtype of x.
    """
    library = functools.partial(plain.conv2d, stride=stride, padding=padding)
    cpu = _form(x_BHWC, kernel_hwCO, stride, padding)
    if cpu is None:
        return library(x_BHWC, kernel_hwCO)
    return lax.platform_dependent(x_BHWC, kernel_hwCO, cpu=cpu, default=library)


def _form(
    x: jax.Array, kernel: jax.Array, stride: int, padding: plain.Padding
) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """Returns what a CPU should compute instead of the library's convolution.

    None: nothing else.
    """
    rows, columns = kernel.shape[:2]
    if stride == 2 and partition.on_one_cpu() and strided.pays(x, kernel, padding):
        return functools.partial(strided.of_input, padding=padding)
    if stride != 1 or not forms.keeps_size(kernel, padding) or (rows, columns) == (1, 1):
        return None
    if columns == 1:
        return functools.partial(forms.over_a_column, before=rows // 2, after=rows // 2)
    winograd = partition.on_one_cpu() and cpu_winograd.pays(x, kernel)
    return cpu_winograd.conv3x3 if winograd else _with_one_more


def _with_one_more(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """One row or column more, cut away again; of the longer axis, which loses least by it."""
    height, width = x.shape[1:3]
    top, left = (n // 2 for n in kernel.shape[:2])
    if height > width:
        return plain.conv2d(x, kernel, 1, ((top, top + 1), (left, left)))[:, :height]
    return plain.conv2d(x, kernel, 1, ((top, top), (left, left + 1)))[:, :, :width]


def gradients(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, stride: int, padding: plain.Padding
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of `conv2d`'s input and kernel, as the library has them.

    On one CPU those of few pixels, and of kernels of one column, are products.
    """
    if stride == 1 and cpu_columns.pays(x, kernel, padding):
        return cpu_columns.gradients(x, kernel, dy)
    rows, columns = kernel.shape[:2]
    tall = rows > 1 and columns == 1  # over time, where pixels are the other axis
    if stride == 1 and tall and forms.plain_on_one_cpu(x, kernel, padding):
        return plain_gradients(x, kernel, dy, padding)
    library = functools.partial(plain.conv2d, stride=stride, padding=padding)
    return forms.library_gradients(library, x, kernel, dy)


def plain_gradients(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, padding: plain.Padding
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of stride 1, where H and W stay, as CPUs like it.

    It takes longer to compile.
    """
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    rest = tuple((n - 1 - pad[0], n - 1 - pad[1]) for n, pad in zip(kernel.shape, padding))
    form = _form(dy, turned, 1, rest) or functools.partial(plain.conv2d, stride=1, padding=rest)
    return form(dy, turned), _kernel_gradient(x, dy, kernel.shape, padding)


def _kernel_gradient(
    x: jax.Array, dy: jax.Array, shape: tuple[int, ...], padding: plain.Padding
) -> jax.Array:
    """One product per kernel row, all kernel columns side by side."""
    kh, kw, c, o = shape
    h, w = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), padding[0], (0, 0), (0, 0)))
    # column j of the kernel pairs x[w + j - pad] with dy[w]
    dy = jnp.pad(dy, ((0, 0), (0, 0), (padding[1][1], padding[1][0]), (0, 0)))
    shifts = [dy[:, :, kw - 1 - j : kw - 1 - j + w] for j in range(kw)]
    dy = jnp.concatenate(shifts, axis=-1)  # [B, H, W, kw*O]
    rows = [dense.kernel_product(x[:, i : i + h], dy) for i in range(kh)]
    # [kh, C, kw*O] -> [kh, kw, C, O]
    return jnp.stack(rows).reshape(kh, c, kw, o).swapaxes(1, 2)


def _forward(x, kernel, stride, padding):
    return conv2d(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, residuals, dy):
    return gradients(*residuals, dy, stride, padding)


conv2d.defvjp(_forward, _backward)
