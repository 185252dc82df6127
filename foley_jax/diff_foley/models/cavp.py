"""CAVP: video and audio features in one space (contrastive audio-visual pretraining).

Axes: B batch, T frames, H W, C channels, F mel bins, D width.
Source: inference/model/cavp_model.py.
"""

from collections.abc import Mapping
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.diff_foley.models import audio_encoder, video_encoder
from foley_jax.layers import batch_norm, configured, dense

LOGIT_SCALE_INIT = math.log(1.0 / 0.07)
LOGIT_SCALE_MAX = math.log(100.0)  # clamp of the training loop, as CLIP


def unit_features(x: jax.Array) -> jax.Array:
    """Returns x / max(|x|, 1e-12) over the last axis, in float32; zeros stay zeros."""
    x = x.astype(jnp.float32)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))  # finite gradient at zero


class Cavp(nnx.Module):
    """Two encoders and a learned logit scale (kept as its natural logarithm)."""

    def __init__(
        self,
        *,
        embed_dim: int = 512,
        video: Mapping[str, Any] | None = None,
        audio: Mapping[str, Any] | None = None,
        row_norm: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Args:
        embed_dim: width of a feature.
        row_norm: BatchNorm on the features of both sides before pooling (beyond the paper). Fresh
          encoders put all features in nearly one direction; taking the mean away lets short
          trainings from scratch start at once.
        video: keyword arguments of `video_encoder.SlowOnly`; None is the official network.
        audio: keyword arguments of `audio_encoder.Cnn14` but `embed_dim`.
        dtype: compute dtype; parameters are float32.
        """
        options = {"dtype": dtype, "rngs": rngs}
        self.embed_dim, self.dtype = embed_dim, dtype
        self.video_encoder = configured.build(video_encoder.SlowOnly, video or {}, **options)
        self.video_project_head = dense.dense(self.video_encoder.out_dim, embed_dim, **options)
        self.spec_encoder = configured.build(
            audio_encoder.Cnn14, {**(audio or {}), "embed_dim": embed_dim}, **options
        )
        norm = lambda: batch_norm.BatchNorm(embed_dim, rngs=rngs) if row_norm else None  # noqa: E731
        self.video_norm, self.spec_norm = norm(), norm()
        self.logit_scale = nnx.Param(jnp.full((), LOGIT_SCALE_INIT, jnp.float32))

    def encode_video(
        self,
        frames_BTHWC: jax.Array,
        *,
        normalize: bool = True,
        pool: bool = False,
        train: bool = False,
    ) -> jax.Array:
        """Features of a silent clip.

        Args:
          frames_BTHWC: float [B, T, H, W, 3], RGB in [0, 1], at the rate of training (the paper's
            4 a second).
          normalize: unit features.
          pool: one feature per clip, the largest value over all T frames (official: T = 16).
          train: use and update batch statistics.
        Returns:
          float32 [B, T, D], or [B, D] with `pool`.
        """
        features = self.video_project_head(self.video_encoder(frames_BTHWC, train=train))
        if self.video_norm is not None:
            features = self.video_norm(features, train=train)
        return _finish(features, normalize, pool)

    def encode_spec(
        self,
        mel_BFT: jax.Array,
        *,
        normalize: bool = True,
        pool: bool = False,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Features of an audio clip, the paper's 4 a second: 16 mel frames of hop 250 at 16 kHz.

        Args:
          mel_BFT: float [B, num_mels, T], log-mel in [0, 1].
          normalize, pool, train: as `encode_video`.
          key: PRNG key of the dropout while training.
        Returns:
          float32 [B, T // time_reduction, D], or [B, D] with `pool`; see `Cnn14`.
        """
        features = self.spec_encoder(mel_BFT, train=train, key=key)
        if self.spec_norm is not None:
            features = self.spec_norm(features, train=train)
        return _finish(features, normalize, pool)


def _finish(features_BTD: jax.Array, normalize: bool, pool: bool) -> jax.Array:
    features = features_BTD.astype(jnp.float32)
    if pool:
        features = features.max(axis=1)
    return unit_features(features) if normalize else features


def default_config() -> dict[str, Any]:
    """The paper's CAVP as a plain `config.model` dict."""
    return {
        "embed_dim": 512,
        "video": {
            "depths": (3, 4, 6, 3),
            "width": 64,
            "inflate": (False, False, True, True),
            "stem": "conv7",
        },
        "audio": {"channels": (64, 128, 256, 512, 1024, 2048), "dropout": 0.2},
    }


def from_config(
    model: Mapping[str, Any], *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs
) -> Cavp:
    """Builds the CAVP that a run's `config.model` describes (see `default_config`)."""
    return configured.build(Cavp, model, dtype=dtype, rngs=rngs)
