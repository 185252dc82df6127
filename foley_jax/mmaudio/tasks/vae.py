"""The stage of MMAudio's mel autoencoder, which the official repository does not train.

Batch (B audio clips, L samples; F mel bands, T mel frames):
  "audio_BL": int16 [B, L], mono audio at `config.audio.sample_rate_hz`.
  "start_B": int32 [B], first mel frame of the crop.

Config fields:
  config.audio: of one of `rates.RATES`.
  config.model.autoencoder: arguments of `mel_autoencoder.MelAutoencoder`.
  config.model.band_mean, band_std: of log-mels, the same in every band, to normalise them.
  config.loss.crop_frames: mel frames of one example, an even number.
  config.loss.kl_weight: weight of the KL, nats of a latent value on average.

The loss is L1 and KL (the paper's, Make-An-Audio 2's, has a critic besides). Kernels are kept
normalised by a projection after every update (EDM2's forced normalisation), so that those of a run
are those in use.
"""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections

from foley_jax.data import clips
from foley_jax.layers import configured
from foley_jax.media import audio as audio_lib
from foley_jax.media import specs
from foley_jax.mmaudio import mel
from foley_jax.mmaudio import rates as rates_lib
from foley_jax.mmaudio.models import magnitude_preserving, mel_autoencoder
from foley_jax.training import task as task_lib


def kl_divergence(mean: jax.Array, logvar: jax.Array) -> jax.Array:
    """KL from N(0, 1) of every latent value: (mean^2 + var - 1 - logvar) / 2.

    The official code halves the mean's square alone (spec B21).
    """
    return 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar)


class VaeTask(task_lib.Task):
    """Reconstruction and KL on crops of log-mels."""

    trainable = nnx.Param

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.rates = rates_lib.of(specs.AudioSpec(**config.audio))
        if config.loss.crop_frames % rates_lib.FRAMES_A_LATENT:
            raise ValueError(
                f"config.loss.crop_frames is {config.loss.crop_frames}, expected an even number: a "
                "latent is two mel frames"
            )

    def build(self, rngs: nnx.Rngs) -> mel_autoencoder.MelAutoencoder:
        """A fresh autoencoder with float32 parameters."""
        fields = self.config.model
        model = configured.build(
            mel_autoencoder.MelAutoencoder, fields.autoencoder, dtype=self.config.dtype, rngs=rngs
        )
        model.data_mean[...] = jnp.full_like(model.data_mean[...], fields.band_mean)
        model.data_std[...] = jnp.full_like(model.data_std[...], fields.band_std)
        return model

    def transform(self, *, train: bool) -> task_lib.Transform:
        """A random crop of one record's audio."""
        del train  # the draw depends on (seed, index) alone
        return clips.AudioCrops(audio=self.rates.audio, crop_frames=self.config.loss.crop_frames)

    def crops(self, batch: task_lib.Batch) -> jax.Array:
        """Log-mels of the crops, float32 [B, F, T]."""
        hop = self.rates.audio.hop
        length = self.config.loss.crop_frames * hop
        cut = jax.vmap(lambda x, start: jax.lax.dynamic_slice(x, (start * hop,), (length,)))
        audio_BL = cut(audio_lib.from_pcm16(batch["audio_BL"]), batch["start_B"])
        return mel.log_mel(audio_BL, self.rates)

    def loss(
        self,
        model: mel_autoencoder.MelAutoencoder,
        batch: task_lib.Batch,
        key: jax.Array,
        *,
        train: bool,
    ) -> tuple[jax.Array, task_lib.Metrics]:
        """L1 of normalised mels, made from a posterior sample or (evaluation) its mean, and KL."""
        mel_BFT = self.crops(batch)
        mean, logvar = model.encode(mel_BFT)
        z = mean
        if train:
            z = mean + jnp.exp(logvar / 2) * jax.random.normal(key, mean.shape)
        error = (model.decode(z) - mel_BFT) / model.data_std[...]
        l1, kl = jnp.abs(error).mean(), kl_divergence(mean, logvar).mean()
        return l1 + self.config.loss.kl_weight * kl, {"l1": l1, "kl": kl}

    def constrain(self, params: Any) -> Any:
        """Kernels normalised for use."""

        def projected(path: tuple, leaf: jax.Array) -> jax.Array:
            if path[-1].key != "kernel":
                return leaf
            # at the size of raw kernels, where the small number in the norm does not count
            fan_in = leaf.size // leaf.shape[-1]
            return magnitude_preserving.normalised_kernel(leaf * fan_in**0.5)

        return jax.tree_util.tree_map_with_path(projected, params)
