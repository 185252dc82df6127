"""Video features to cross-attention context.

B batch, L features, D width.
"""

from collections.abc import Mapping
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.layers import configured, dense


class VideoFeatureConditioner(nnx.Module):
    """Linear projection plus a learned vector per position.

    Fields beyond the paper's, for short trainings from scratch: `feature_gain` multiplies the
    features (features of unit norm have tiny entries), `position_std` is the initial size of the
    position vectors (torch's 1 drowns such features at first).
    Source: Diff-Foley video_feat_encoder.Video_Feat_Encoder_Posembed.
    """

    def __init__(
        self,
        *,
        in_dim: int = 512,
        out_dim: int = 768,
        max_len: int = 40,
        feature_gain: float = 1.0,
        position_std: float = 1.0,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.embedder = dense.dense(in_dim, out_dim, dtype=dtype, rngs=rngs)
        self.pos_emb = nnx.Embed(
            max_len,
            out_dim,
            embedding_init=jax.nn.initializers.normal(position_std),
            dtype=dtype,
            param_dtype=jnp.float32,
            rngs=rngs,
        )
        self.in_dim = in_dim
        self.max_len = max_len
        self.feature_gain = feature_gain

    def __call__(self, features_BLD: jax.Array) -> jax.Array:
        """CAVP features [B, L, in_dim] -> context [B, L, out_dim], L <= max_len.

        The condition dropped in training, and hence the null context that training has seen, is
        this function of zeros: bias + positions.
        Raises:
          ValueError: too many features, or features of another width.
        """
        _, num_features, width = features_BLD.shape
        if num_features > self.max_len or width != self.in_dim:
            raise ValueError(
                f"there are {num_features} features of width {width}; the conditioner takes at "
                f"most {self.max_len} features of width {self.in_dim}: cut the video into windows"
            )
        h = self.embedder(features_BLD * self.feature_gain)
        return h + self.pos_emb(jnp.arange(num_features))[None]


def from_config(
    config: Mapping[str, Any], *, dtype: Any = None, rngs: nnx.Rngs
) -> VideoFeatureConditioner:
    """Builds the conditioner of `config.model.conditioner`.

    Raises:
      ValueError: unknown field.
    """
    return configured.build(VideoFeatureConditioner, config, dtype=dtype, rngs=rngs)
