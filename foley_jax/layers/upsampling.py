"""Twice the height and width by repeating pixels, alone and with the 3x3 convolution after it.

B batch, H W space, C channels in, O channels out.
"""

import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.kernels.cpu import conv, strided
from foley_jax.runtime import sharding

_PADDING = ((1, 1), (1, 1))


def nearest(x_BHWC: jax.Array) -> jax.Array:
    """Repeats every pixel 2x2 by a broadcast (no gather): [B, H, W, C] -> [B, 2H, 2W, C]."""
    b, h, w, c = x_BHWC.shape
    x = jnp.broadcast_to(x_BHWC[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


@jax.custom_vjp
def conv3x3(x_BHWC: jax.Array, kernel_33CO: jax.Array) -> jax.Array:
    """`nearest`, then a 3x3 convolution: [B, H, W, C] -> [B, 2H, 2W, O].

    On CPUs with 4/9 of the multiplications (`kernels.cpu.strided`); its gradients are of the two
    steps, for which XLA:CPU has faster code.
    """
    if not (sharding.on_one_cpu() and strided.doubling_pays(x_BHWC, kernel_33CO)):
        return _two_steps(x_BHWC, kernel_33CO)
    return lax.platform_dependent(x_BHWC, kernel_33CO, cpu=strided.of_doubled, default=_two_steps)


def _two_steps(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return conv.conv2d(nearest(x), kernel, 1, _PADDING)


def _forward(x, kernel):
    return conv3x3(x, kernel), (x, kernel)


def _backward(residuals, dy):
    x, kernel = residuals
    dlarge, dkernel = conv.gradients(nearest(x), kernel, dy, 1, _PADDING)
    return jax.linear_transpose(nearest, x)(dlarge)[0], dkernel


conv3x3.defvjp(_forward, _backward)
