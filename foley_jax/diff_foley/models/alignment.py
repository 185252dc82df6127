"""Does this audio belong to this video, at this time? The alignment classifier and its parts.

B batch, H W latent rows (frequency) and columns (time), C channels, L features, D their width,
F mel bins, T mel frames.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.diff_foley.models import (
    autoencoder,
    conditioner,
    latent_diffusion,
    unet,
    unet_blocks,
)
from foley_jax.layers import configured, conv, dense, locality, norm

CONTEXT_DIM = (
    512  # CAVP's width, which is why the official sampler's raw features fit (see `logits`)
)
PARTS = ("classifier", "conditioner", "autoencoder", "latent_scale")


class AlignmentClassifier(unet.Trunk):
    """The encoder half of the U-Net, pooled to one number: 11,450,753 parameters by default.

    The fields are those of `unet.UNet`; half the width of the last level is pooled.
    Source: Diff-Foley alignment_backbone.py, Double_Guidance_Classifier.yaml.
    """

    def __init__(
        self,
        *,
        in_channels: int = 4,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2),
        num_res_blocks: int = 1,
        attention_downsamples: Sequence[int] = (2, 4),
        self_attention_downsamples: Sequence[int] | None = None,
        middle_self_attention: bool = True,
        num_heads: int = 8,
        context_dim: int = CONTEXT_DIM,
        depth: int = 1,
        num_groups: int = 32,
        locality_bias: bool = False,
        column_s: float = 0.128,
        feature_s: float = locality.FEATURE_S,
        remat: bool = False,
        attention_implementation: str = "auto",
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        blocks = unet_blocks.Blocks(
            model_channels=model_channels,
            attention_downsamples=attention_downsamples,
            self_attention_downsamples=self_attention_downsamples,
            num_heads=num_heads,
            context_dim=context_dim,
            depth=depth,
            num_groups=num_groups,
            locality_bias=locality_bias,
            feature_s=feature_s,
            attention_implementation=attention_implementation,
            dtype=dtype,
            rngs=rngs,
        )
        super().__init__(
            blocks,
            in_channels=in_channels,
            channel_mult=channel_mult,
            num_res_blocks=num_res_blocks,
            middle_self_attention=middle_self_attention,
            column_s=column_s,
            remat=remat,
        )
        ch, pooled = self.widths[-1], self.widths[-1] // 2
        self.norm_out = norm.GroupNorm32(
            ch, num_groups=num_groups, epsilon=unet_blocks.NORM_EPSILON, rngs=rngs
        )
        self.conv_out = conv.Conv2d(ch, pooled, zero_init=True, dtype=dtype, rngs=rngs)
        self.head = dense.dense(pooled, 1, rngs=rngs)  # float32, as all that follows

    def __call__(
        self,
        x_BHWC: jax.Array,
        t_B: jax.Array,
        context: jax.Array | unet.KeysValues,
        *,
        context_s_BL: jax.Array | None = None,
        column_s: float | None = None,
    ) -> jax.Array:
        """Logit of "this audio belongs to this video", before the sigmoid.

        Args:
          x_BHWC: scaled latents, noised to step t.
          t_B: steps in model time [0, num_steps), float32, fractions allowed; 0 for clean latents.
          context: features [B, L, D] of width `context_dim`, usually behind the conditioner, any
            number of them; or their `keys_values`.
          context_s_BL, column_s: see `unet.UNet.__call__`.
        Returns:
          float32 [B].
        Raises:
          ValueError: sizes that do not fit the config.
        """
        run = self.runner(x_BHWC, t_B, context, context_s_BL, column_s)
        h, _ = self.down(run, x_BHWC)
        h = self.conv_out(jax.nn.silu(self.norm_out(h)))
        pooled_BC = h.astype(jnp.float32).mean(axis=(1, 2))
        return self.head(pooled_BC)[:, 0]


class AlignmentModel(nnx.Module):
    """`classifier` and `conditioner`; with `autoencoder` and `latent_scale` it reads mels too.

    The guidance classifier needs no autoencoder while sampling (both are None); training and the
    evaluation classifier do.
    """

    def __init__(
        self,
        *,
        classifier: AlignmentClassifier,
        conditioner: conditioner.VideoFeatureConditioner,
        autoencoder: autoencoder.AutoencoderKL | None = None,
        latent_scale: float = latent_diffusion.LATENT_SCALE,
    ):
        self.classifier = classifier
        self.conditioner = conditioner
        self.autoencoder = autoencoder
        self.latent_scale = (
            None
            if autoencoder is None
            else latent_diffusion.LatentScale(jnp.asarray(latent_scale, jnp.float32))
        )

    def encode_mel(self, mel_BFT: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Mels in [0, 1] [B, F, T] -> scaled latents float32 [B, F/f, T/f, C].

        `key` draws from the posterior; None takes its mean.
        Raises:
          ValueError: this model has no autoencoder.
        """
        if self.autoencoder is None:
            raise ValueError(
                "this alignment model has no autoencoder (a guidance classifier); encode with "
                "the latent-diffusion model's encode_mel, or load an evaluation classifier"
            )
        return latent_diffusion.encode_mel(
            self.autoencoder, self.latent_scale[...], mel_BFT, key=key
        )

    def keys_values(self, features_BLD: jax.Array, *, embed: bool = True) -> unet.KeysValues:
        """Returns what the classifier's cross-attentions make of CAVP features; see `logits`."""
        return self.classifier.keys_values(
            self.conditioner(features_BLD) if embed else features_BLD
        )

    def logits(
        self,
        x_BHWC: jax.Array,
        t_B: jax.Array,
        video_features: jax.Array | unet.KeysValues,
        *,
        embed: bool = True,
        context_s_BL: jax.Array | None = None,
    ) -> jax.Array:
        """Logits float32 [B] that latents and CAVP features belong together.

        Args:
          x_BHWC: scaled latents, noised to step t.
          t_B: steps in model time, float32.
          features: CAVP features [B, L, D] of the window, or their `keys_values`.
          embed: True passes them through the conditioner, as in training. False is preset
            'official': the published sampler hands the raw features, and all of the video's instead
            of the window's, to the classifier, which has never seen such features. Of keys and
            values, it was decided when they were made.
          context_s_BL: seconds of each feature; see `unet.UNet.__call__`.
        """
        context = (
            self.conditioner(video_features)
            if embed and not isinstance(video_features, list)
            else video_features
        )
        return self.classifier(x_BHWC, t_B, context, context_s_BL=context_s_BL)

    def log_prob(
        self,
        x_BHWC: jax.Array,
        t_B: jax.Array,
        video_features: jax.Array | unet.KeysValues,
        *,
        embed: bool = True,
        context_s_BL: jax.Array | None = None,
    ) -> jax.Array:
        """log of the probability of a match, float32 [B]; arguments as of `logits`."""
        return jax.nn.log_sigmoid(
            self.logits(x_BHWC, t_B, video_features, embed=embed, context_s_BL=context_s_BL)
        )


def default_config(*, autoencoder: bool = False) -> dict[str, Any]:
    """The official networks' fields: the guidance classifier, or with the autoencoder the other."""
    fields = {
        "classifier": configured.defaults(AlignmentClassifier),
        "conditioner": {
            **configured.defaults(conditioner.VideoFeatureConditioner),
            "out_dim": CONTEXT_DIM,
        },
    }
    if autoencoder:
        official = latent_diffusion.default_config()
        fields.update({key: official[key] for key in ("autoencoder", "latent_scale")})
    return fields


def from_config(
    config: Mapping[str, Any],
    *,
    frame_s: float | None = None,
    feature_s: float | None = None,
    dtype: Any = None,
    rngs: nnx.Rngs,
) -> AlignmentModel:
    """Builds the model of `config.model`.

    Args:
      config: classifier, conditioner: dicts of constructor fields (empty or absent: the
        paper's); autoencoder: likewise, absent or None for none; latent_scale: default 0.18215.
      frame_s: seconds between mel frames; with an autoencoder it gives `classifier.column_s`
        where the config does not.
      feature_s: seconds between features; gives `classifier.feature_s` likewise.
      dtype: compute dtype of the networks, e.g. `config.dtype`.
      rngs: where the initial weights come from.
    Raises:
      ValueError: unknown field, or widths that do not fit each other.
    """
    unknown = sorted(set(config) - set(PARTS))
    if unknown:
        raise ValueError(f"config.model has no field {', '.join(unknown)}; its fields: {PARTS}")
    build = {"dtype": dtype, "rngs": rngs}
    fields, first_stage = dict(config.get("classifier", {})), config.get("autoencoder")
    if first_stage is not None:
        first_stage = autoencoder.from_config(first_stage, **build)
        if frame_s is not None:
            fields.setdefault("column_s", first_stage.downsampling[1] * frame_s)
    if feature_s is not None:
        fields.setdefault("feature_s", feature_s)
    scale = config.get("latent_scale")
    model = AlignmentModel(
        classifier=configured.build(AlignmentClassifier, fields, **build),
        conditioner=conditioner.from_config(
            {"out_dim": CONTEXT_DIM, **config.get("conditioner", {})}, **build
        ),
        autoencoder=first_stage,
        latent_scale=latent_diffusion.LATENT_SCALE if scale is None else scale,
    )
    out_dim, context_dim = model.conditioner.pos_emb.features, model.classifier.context_dim
    if out_dim != context_dim:
        raise ValueError(
            f"conditioner.out_dim is {out_dim}, classifier.context_dim is {context_dim}; set them "
            "equal"
        )
    if first_stage is not None and first_stage.z_channels != model.classifier.in_channels:
        raise ValueError(
            f"autoencoder.z_channels is {first_stage.z_channels} but classifier.in_channels is "
            f"{model.classifier.in_channels}; set them equal"
        )
    return model
