"""A cheap stem for small images and mels: a linear map of pixel blocks and a BatchNorm."""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels import patches
from foley_jax.layers import batch_norm, dense, initializers


class PatchNorm(nnx.Module):
    """[B, H, W, C] -> [B, H/patch, W/patch, out]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        patch: int,
        *,
        kernel_init: initializers.Initializer,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.patch = patch
        self.conv = dense.Pointwise(
            in_channels * patch**2, out_channels, kernel_init=kernel_init, dtype=dtype, rngs=rngs
        )
        self.bn = batch_norm.BatchNorm(out_channels, dtype=dtype, rngs=rngs)

    def __call__(self, x_BHWC: jax.Array, *, train: bool, relu: bool = False) -> jax.Array:
        """Raises ValueError where a side is no multiple of the patch."""
        x = self.conv(patches.space_to_depth(x_BHWC, (self.patch, self.patch)))
        return self.bn(x, train=train, relu=relu)
