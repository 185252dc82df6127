"""A 3x3 convolution of an image whose pixels are repeated 2x2, with 4/9 of the multiplications.

Its gradients are of the two steps, repeating and convolving, for which XLA:CPU has faster code.
B batch, H W space, C channels in, O channels out.
"""

import jax
from jax import lax

from foley_jax.kernels import plain
from foley_jax.kernels.cpu import conv, strided
from foley_jax.runtime import partition

_PADDING = ((1, 1), (1, 1))


@jax.custom_vjp
def conv3x3(x_BHWC: jax.Array, kernel_33CO: jax.Array) -> jax.Array:
    """`plain.nearest`, then a 3x3 convolution: [B, H, W, C] -> [B, 2H, 2W, O]."""
    if not (partition.on_one_cpu() and strided.doubling_pays(x_BHWC, kernel_33CO)):
        return _two_steps(x_BHWC, kernel_33CO)
    return lax.platform_dependent(x_BHWC, kernel_33CO, cpu=strided.of_doubled, default=_two_steps)


def _two_steps(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return conv.conv2d(plain.nearest(x), kernel, 1, _PADDING)


def _forward(x, kernel):
    return conv3x3(x, kernel), (x, kernel)


def _backward(residuals, dy):
    x, kernel = residuals
    dlarge, dkernel = conv.gradients(plain.nearest(x), kernel, dy, 1, _PADDING)
    return jax.linear_transpose(plain.nearest, x)(dlarge)[0], dkernel


conv3x3.defvjp(_forward, _backward)
