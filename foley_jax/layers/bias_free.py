"""Bias-free dense maps and convolutions, as they stand before a BatchNorm.

B batch, T frames, H W space, P pixels, C channels.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels.cpu import dense, gradients
from foley_jax.layers import initializers


class Dense(nnx.Module):
    """[..., in] -> [..., out]; a 1x1 convolution. Kernel [in, out]."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        kernel_init: initializers.Initializer,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (in_dim, out_dim), jnp.float32))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        return dense.dense(x.astype(self.dtype), self.kernel[...].astype(self.dtype))


class Conv2d(nnx.Module):
    """[B, H, W, in] -> [B, H/s, W/s, out], torch's padding k // 2. Kernel [k, k, in, out]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        kernel_init: initializers.Initializer,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, kernel_size, in_channels, out_channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.stride, self.dtype = stride, dtype

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        return gradients.conv2d(x_BHWC.astype(self.dtype), kernel, self.stride)


class TemporalConv3(nnx.Module):
    """Three neighbouring frames, zeros beyond the ends: [B, T, P, in] -> [B, T, P, out].

    Kernel [3, in, out].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_init: initializers.Initializer,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        shape = (3, in_channels, out_channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.dtype = dtype

    def __call__(self, x_BTPC: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        return gradients.temporal_conv3(x_BTPC.astype(self.dtype), kernel)
