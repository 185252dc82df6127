"""The residual block that the U-Net, the autoencoder and the classifier share.

B batch, H W space, C channels, D width of the time embedding.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.layers import conv, dense
from foley_jax.layers import norm as normalization


class ResBlock(nnx.Module):
    """norm, SiLU, conv, (+ time), norm, SiLU, conv, + shortcut.

    `time_dim=None` builds the block without a time input (the autoencoder's).
    Source: openaimodel.ResBlock (epsilon 1e-5, last conv zero) and SD autoencoder ResnetBlock
    (epsilon 1e-6, no zero init).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        time_dim: int | None = None,
        epsilon: float,
        num_groups: int = 32,
        zero_init: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        norm = {"num_groups": num_groups, "epsilon": epsilon, "rngs": rngs}
        build = {"dtype": dtype, "rngs": rngs}
        self.norm1 = normalization.GroupNorm32(in_channels, **norm)
        self.conv1 = conv.Conv2d(in_channels, out_channels, **build)
        self.time_proj = None if time_dim is None else dense.dense(time_dim, out_channels, **build)
        self.norm2 = normalization.GroupNorm32(out_channels, **norm)
        self.conv2 = conv.Conv2d(out_channels, out_channels, zero_init=zero_init, **build)
        self.shortcut = (
            None
            if in_channels == out_channels
            else conv.Conv2d(in_channels, out_channels, (1, 1), **build)
        )

    def __call__(self, x_BHWC: jax.Array, time_BD: jax.Array | None = None) -> jax.Array:
        """[B, H, W, in] -> [B, H, W, out]; `time_BD` is the embedding after its SiLU."""
        h = self.conv1(jax.nn.silu(self.norm1(x_BHWC)))
        if self.time_proj is not None:
            h = h + self.time_proj(time_BD)[:, None, None, :]
        h = self.conv2(jax.nn.silu(self.norm2(h)))
        return h + (x_BHWC if self.shortcut is None else self.shortcut(x_BHWC))
