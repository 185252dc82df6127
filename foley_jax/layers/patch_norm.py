"""A cheap stem for small pictures and mels: one linear map of pixel blocks, then BatchNorm."""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.layers import bias_free, convolution, initializers


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
        self.conv = bias_free.Dense(
            in_channels * patch**2, out_channels, kernel_init=kernel_init, dtype=dtype, rngs=rngs
        )
        # torch momentum 0.1 is 0.9 here
        self.bn = nnx.BatchNorm(out_channels, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)

    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """Raises ValueError where a side is no multiple of the patch."""
        x = self.conv(convolution.space_to_depth(x_BHWC, (self.patch, self.patch)))
        return self.bn(x, use_running_average=not train)
