"""3x3x3 convolution of clips as one of images; same numbers.

XLA:CPU's convolution in three dimensions takes 10 times as long and more. Here one convolution of
images gives what every frame adds to the frame after it, to itself and to the one before, and
these are summed.
B batch, F frames, H W space, C channels in, O channels out.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.kernels import plain
from foley_jax.kernels.cpu import conv, forms

_ONE = ((1, 1), (1, 1))


@jax.custom_vjp
def conv3d(x_BFHWC: jax.Array, kernel_thwCO: jax.Array) -> jax.Array:
    """Keeps F, H and W: [B, F, H, W, C] and [3, 3, 3, C, O] -> [B, F, H, W, O]."""
    return lax.platform_dependent(x_BFHWC, kernel_thwCO, cpu=_by_images, default=plain.conv3d)


def _by_images(x: jax.Array, kernel: jax.Array) -> jax.Array:
    images = x.reshape(-1, *x.shape[2:])
    return _summed(conv.conv2d(images, plain.side_by_side(kernel), 1, _ONE), x.shape)


def _summed(y: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[B*F, H, W, 3*O], what frame f gives to f + 1, f and f - 1 -> [B, F, H, W, O]."""
    b, f, h, w, _ = shape
    y = jnp.pad(y.reshape(b, f, h, w, 3, -1), ((0, 0), (1, 1), *((0, 0),) * 4))
    return sum(y[:, t : t + f, :, :, t] for t in range(3))


def _forward(x, kernel):
    return conv3d(x, kernel), (x, kernel)


def _backward(residuals, dy):
    librarys = functools.partial(forms.library_gradients, plain.conv3d)
    return lax.platform_dependent(*residuals, dy, cpu=_image_gradients, default=librarys)


def _image_gradients(x, kernel, dy):
    images, turned = x.reshape(-1, *x.shape[2:]), plain.side_by_side(kernel)
    like = jax.ShapeDtypeStruct((*images.shape[:3], turned.shape[3]), dy.dtype)
    (dy,) = jax.linear_transpose(functools.partial(_summed, shape=x.shape), like)(dy)
    dx, dkernel = conv.gradients(images, turned, dy, 1, _ONE)
    # [3, 3, C, 3*O] -> [3, 3, 3, C, O]
    return dx.reshape(x.shape), dkernel.reshape(*turned.shape[:3], 3, -1).transpose(3, 0, 1, 2, 4)


conv3d.defvjp(_forward, _backward)
