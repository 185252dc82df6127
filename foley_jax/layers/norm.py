"""Normalisation with float32 statistics whatever the compute dtype.

B batch, H W space, C channels.
"""

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.kernels import dispatch


class GroupNorm32(nnx.Module):
    """Group normalisation computed in float32 and cast back to the input's dtype.

    Channels are reduced last, as one multiply-add per pixel: y = x * a_BC + b_BC.
    Source: openaimodel util.GroupNorm32 (epsilon 1e-5); SD's VAE and SpatialTransformer use 1e-6.
    """

    def __init__(self, channels: int, *, num_groups: int = 32, epsilon: float, rngs: nnx.Rngs):
        if channels % num_groups:
            raise ValueError(
                f"{channels} channels cannot form {num_groups} groups; set num_groups to a divisor"
            )
        del rngs  # scale and bias start at one and zero
        self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.num_groups = num_groups
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises [B, ..., C] over the middle axes and each group of channels."""
        x_BSC = x.reshape(x.shape[0], -1, x.shape[-1])
        y_BSC = dispatch.group_norm(
            x_BSC, self.scale[...], self.bias[...], self.num_groups, self.epsilon
        )
        return y_BSC.reshape(x.shape)


def layer_norm(
    channels: int, *, epsilon: float = 1e-5, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs
) -> nnx.LayerNorm:
    """Layer norm over the last axis; flax keeps the statistics in float32.

    Args:
      epsilon: torch's by default.
    """
    return nnx.LayerNorm(channels, epsilon=epsilon, dtype=dtype, param_dtype=jnp.float32, rngs=rngs)


def standardise(x: jax.Array, *, epsilon: float = 1e-5) -> jax.Array:
    """Layer norm over the last axis without weights: mean 0, variance 1; statistics in float32."""
    x32 = x.astype(jnp.float32)
    centred = x32 - x32.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return (centred * lax.rsqrt(variance + epsilon)).astype(x.dtype)
