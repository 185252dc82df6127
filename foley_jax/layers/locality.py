"""A learned preference of cross-attention for the features that are near in time.

Beyond the paper: plain cross-attention needs hundreds of steps to find out which feature belongs to
which latent column; this prior makes a short training synchronous and stays learnable.
B batch, H W latent rows and columns, L features, N heads, C channels.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.layers import dense

UNIT_S = 0.25  # the unit of all times here, whatever the rate of the features is
FEATURE_S = 0.25  # seconds between features at the paper's 4 a second
OFFSETS = (0.0, -1.0, 1.0, 0.0)  # initial distance, in units, of where each head looks


def relative_times(num_columns: int, column_s: float, context_s_BL: jax.Array) -> jax.Array:
    """Time of every column's centre minus time of every feature, in units of 0.25 s.

    Args:
      num_columns: latent columns W at this resolution.
      column_s: seconds that one of these columns lasts; column 0 starts at 0 s.
      context_s_BL: seconds of each feature, relative to the start of the window.
    Returns:
      float32 [B, W, L].
    """
    centre_W = (jnp.arange(num_columns, dtype=jnp.float32) + 0.5) * column_s
    return (centre_W[None, :, None] - context_s_BL.astype(jnp.float32)[:, None, :]) / UNIT_S


class Locality(nnx.Module):
    """Bias -(t_query - t_feature - offset_h)^2 exp(log_sharpness_h), and a position for queries."""

    def __init__(
        self,
        num_heads: int,
        channels: int,
        *,
        feature_s: float = FEATURE_S,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        offsets = [OFFSETS[i % len(OFFSETS)] for i in range(num_heads)]
        self.offset = nnx.Param(jnp.asarray(offsets, jnp.float32))
        self.log_sharpness = nnx.Param(jnp.zeros((num_heads,), jnp.float32))
        self.units = feature_s / UNIT_S  # from one feature to the next
        self.phase_proj = dense.dense(2, channels, use_bias=False, dtype=dtype, rngs=rngs)

    def bias(self, relative_BWL: jax.Array) -> jax.Array:
        """float32 [B, N, W, L], to be added to the attention logits."""
        offset = self.offset[...].reshape(1, -1, 1, 1)
        sharpness = jnp.exp(self.log_sharpness[...]).reshape(1, -1, 1, 1)
        return -((relative_BWL[:, None] - offset) ** 2) * sharpness

    def position(self, relative_BWL: jax.Array) -> jax.Array:
        """[B, 1, W, C]: where inside its feature a column lies, as a projected sine and cosine.

        That feature is the last one that starts at or before the column's centre, so a window
        merged from two clips has the right phase on both sides of the cut.
        """
        since = jnp.where(relative_BWL >= 0, relative_BWL, jnp.inf).min(-1)
        nearest = jnp.where(jnp.isfinite(since), since, relative_BWL.max(-1))
        phase_BW = 2 * jnp.pi / self.units * nearest
        wave_BW2 = jnp.stack([jnp.sin(phase_BW), jnp.cos(phase_BW)], axis=-1)
        return self.phase_proj(wave_BW2)[:, None]
