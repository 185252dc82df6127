"""The three networks of Diff-Foley's second stage and the scale between two of them.

B batch, F mel bins, T mel frames, H W latent rows and columns, C latent channels, L features.
"""

from collections.abc import Mapping
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.diff_foley.models import autoencoder, conditioner, unet
from foley_jax.layers import configured

LATENT_SCALE = 0.18215  # 1 / std of SD's VAE latents; `scale_factor` of the official config
PARTS = ("unet", "autoencoder", "conditioner", "latent_scale")


class LatentScale(nnx.Variable):
    """Factor that gives latents unit variance: saved with the model, never trained."""


class LatentDiffusion(nnx.Module):
    """`unet`, `autoencoder`, `conditioner` and `latent_scale`."""

    def __init__(
        self,
        *,
        unet: unet.UNet,
        autoencoder: autoencoder.AutoencoderKL,
        conditioner: conditioner.VideoFeatureConditioner,
        latent_scale: float = LATENT_SCALE,
    ):
        self.unet = unet
        self.autoencoder = autoencoder
        self.conditioner = conditioner
        self.latent_scale = LatentScale(jnp.asarray(latent_scale, jnp.float32))

    def encode_mel(self, mel_BFT: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Mels in [0, 1] [B, F, T] -> scaled latents float32 [B, F/f, T/f, C].

        `key` draws from the posterior; None takes its mean.
        """
        return encode_mel(self.autoencoder, self.latent_scale[...], mel_BFT, key=key)

    def decode_mel(self, z_BHWC: jax.Array) -> jax.Array:
        """Scaled latents -> mels float32 [B, F, T]: channel 0 of the image, not clipped."""
        return self.autoencoder.decode(z_BHWC / self.latent_scale[...])[..., 0]

    def denoise(
        self,
        z_BHWC: jax.Array,
        t_B: jax.Array,
        context: jax.Array | unet.KeysValues,
        *,
        context_s_BL: jax.Array | None = None,
        column_s: float | None = None,
    ) -> jax.Array:
        """The U-Net's prediction for noisy scaled latents; see `UNet.__call__`."""
        return self.unet(z_BHWC, t_B, context, context_s_BL=context_s_BL, column_s=column_s)

    def latent_shape(self, num_mels: int, num_frames: int) -> tuple[int, int, int]:
        """(H, W, C) of the latent of a mel of that size."""
        fh, fw = self.autoencoder.downsampling
        return num_mels // fh, num_frames // fw, self.autoencoder.z_channels


def default_config() -> dict[str, Any]:
    """The official networks' fields: the defaults of every class."""
    return {
        "unet": configured.defaults(unet.UNet),
        "autoencoder": configured.defaults(autoencoder.AutoencoderKL),
        "conditioner": configured.defaults(conditioner.VideoFeatureConditioner),
        "latent_scale": LATENT_SCALE,
    }


def to_image(mel_BFT: jax.Array, channels: int) -> jax.Array:
    """Repeats a mel as an image: [B, F, T] -> [B, F, T, channels]."""
    return jnp.broadcast_to(mel_BFT[..., None], (*mel_BFT.shape, channels))


def encode_mel(
    first_stage: autoencoder.AutoencoderKL,
    latent_scale: jax.Array,
    mel_BFT: jax.Array,
    *,
    key: jax.Array | None,
) -> jax.Array:
    """Mels in [0, 1] -> scaled latents; see `LatentDiffusion.encode_mel`."""
    mean, logvar = first_stage.encode(to_image(mel_BFT, first_stage.in_channels))
    return latent_scale * autoencoder.sample(mean, logvar, key=key)


def from_config(
    config: Mapping[str, Any],
    *,
    frame_s: float | None = None,
    feature_s: float | None = None,
    dtype: Any = None,
    rngs: nnx.Rngs,
) -> LatentDiffusion:
    """Builds the model of `config.model`.

    Args:
      config: unet, autoencoder, conditioner: dicts of constructor fields (empty or absent: the
        paper's); latent_scale: float, default 0.18215.
      frame_s: seconds between mel frames; gives `unet.column_s` where the config does not.
      feature_s: seconds between features; gives `unet.feature_s` likewise.
      dtype: compute dtype of the networks, e.g. `config.dtype`.
      rngs: where the initial weights come from.
    Raises:
      ValueError: unknown field, or the conditioner's width is not the U-Net's context_dim.
    """
    unknown = sorted(set(config) - set(PARTS))
    if unknown:
        raise ValueError(f"config.model has no field {', '.join(unknown)}; its fields: {PARTS}")
    first_stage = autoencoder.from_config(config.get("autoencoder", {}), dtype=dtype, rngs=rngs)
    unet_fields = dict(config.get("unet", {}))
    if frame_s is not None:
        unet_fields.setdefault("column_s", first_stage.downsampling[1] * frame_s)
    if feature_s is not None:
        unet_fields.setdefault("feature_s", feature_s)
    model = LatentDiffusion(
        unet=unet.from_config(unet_fields, dtype=dtype, rngs=rngs),
        autoencoder=first_stage,
        conditioner=conditioner.from_config(config.get("conditioner", {}), dtype=dtype, rngs=rngs),
        latent_scale=config.get("latent_scale", LATENT_SCALE),
    )
    out_dim, context_dim = model.conditioner.pos_emb.features, model.unet.context_dim
    if out_dim != context_dim:
        raise ValueError(
            f"conditioner.out_dim is {out_dim}, unet.context_dim is {context_dim}; set them equal"
        )
    if model.autoencoder.z_channels != model.unet.in_channels:
        raise ValueError(
            f"autoencoder.z_channels is {model.autoencoder.z_channels} but unet.in_channels is "
            f"{model.unet.in_channels}; set them equal"
        )
    return model
