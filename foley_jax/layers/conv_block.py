"""The block of PANNs' convolutional networks, shared by CAVP's audio encoder and by metrics.

Axes: B batch, T mel frames, F mel bins, C channels.
Source: audioset_tagging_cnn pytorch/models.py `ConvBlock`.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.layers import batch_norm, conv

_XAVIER = nnx.initializers.xavier_uniform()


def average_pool(x_BTFC: jax.Array, pool: tuple[int, int]) -> jax.Array:
    """Non-overlapping means; a remainder at the end of an axis is dropped, as torch does."""
    if pool == (1, 1):
        return x_BTFC
    b, t, f, c = x_BTFC.shape
    pt, pf = pool
    x = x_BTFC[:, : t // pt * pt, : f // pf * pf]
    return x.reshape(b, t // pt, pt, f // pf, pf, c).mean(axis=(2, 4))


class ConvBlock(nnx.Module):
    """Two 3x3 convolutions with BatchNorm and ReLU, then a mean pool."""

    def __init__(self, in_channels: int, out_channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        options = {"use_bias": False, "kernel_init": _XAVIER, "dtype": dtype, "rngs": rngs}
        self.conv1 = conv.Conv2d(in_channels, out_channels, **options)
        self.conv2 = conv.Conv2d(out_channels, out_channels, **options)
        self.bn1 = batch_norm.BatchNorm(out_channels, dtype=dtype, rngs=rngs)
        self.bn2 = batch_norm.BatchNorm(out_channels, dtype=dtype, rngs=rngs)

    def __call__(self, x_BTFC: jax.Array, pool: tuple[int, int], *, train: bool) -> jax.Array:
        x = self.bn1(self.conv1(x_BTFC), train=train, relu=True)
        x = self.bn2(self.conv2(x), train=train, relu=True)
        return average_pool(x, pool)
