"""A BigVGAN for our own log-mels: audio from mels without a bridge or a change of rate.

Batch (B audio clips, L samples):
  "audio_BL": int16 [B, L], mono audio at `config.audio.sample_rate_hz`.
  "start_B": int32 [B], first mel frame of the crop, in [0, 1 + L // hop - crop_frames].

Config fields:
  config.audio: AudioSpec's.
  config.model.vocoder: arguments of `bigvgan.BigVgan`; the product of `upsample_rates` is the hop.
  config.model.discriminators: arguments of `discriminators.WaveformDiscriminators`
    (periods, resolutions, channels); absent or None: no critics.
  config.loss.crop_frames: mel frames of one example.
  config.loss.mel_weight: of the multi-scale mel loss (15 in BigVGAN v2).
  config.loss.mel_windows, mel_bins: window lengths in samples and mel bins of its scales.
  config.loss.adversarial_weight, adversarial_start: weight of the critics' opinion and the step at
    which it starts to count (default 0 and 0); a weight above 0 needs the discriminators.
  config.loss.feature_weight: of feature matching, relative to the opinion (default 2).

Sampling: `diff_foley.vocoder.NeuralVocoder(model.generator, audio, scale="unit")`.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections

from foley_jax.data import clips
from foley_jax.diff_foley.models import discriminator
from foley_jax.diff_foley.tasks import autoencoder, exhibits
from foley_jax.layers import configured
from foley_jax.media import audio as audio_lib
from foley_jax.media import mel, specs
from foley_jax.runtime import partition
from foley_jax.training import task as task_lib
from foley_jax.vocoders import bigvgan, discriminators, neural

FEATURE_WEIGHT = 2.0  # HiFi-GAN
MEL_FLOOR = 1e-5
HIGHEST = jax.lax.Precision.HIGHEST


def multi_scale_mel_loss(
    made_BL: jax.Array,
    wanted_BL: jax.Array,
    sample_rate_hz: int,
    *,
    windows: Sequence[int],
    bins: Sequence[int],
) -> jax.Array:
    """Sum over scales of the mean |log10 mel - log10 mel|, mels of 0 Hz to half the rate.

    Args:
      made_BL, wanted_BL: float [B, L], L more than half of the longest window.
      windows: Hann window lengths; the hop is a quarter.
      bins: mel bins of each scale.
    Returns:
      Scalar float32.
    Source: BigVGAN loss.py `MultiScaleMelSpectrogramLoss`, with its 1e-5 floor.
    """
    total = jnp.zeros(())
    for window, count in zip(windows, bins, strict=True):
        spec = specs.AudioSpec(
            sample_rate_hz=sample_rate_hz,
            n_fft=window,
            hop=window // 4,
            num_mels=count,
            fmin_hz=0.0,
            fmax_hz=sample_rate_hz / 2,
        )
        logs = [_log10_mel(audio_BL, spec) for audio_BL in (made_BL, wanted_BL)]
        total = total + jnp.abs(logs[0] - logs[1]).mean()
    return total


def _log10_mel(audio_BL: jax.Array, spec: specs.AudioSpec) -> jax.Array:
    magnitude = jnp.abs(partition.shard_map_batch(functools.partial(mel.stft, spec=spec))(audio_BL))
    mel_BTF = jnp.matmul(magnitude, mel.mel_basis(spec).T, precision=HIGHEST)
    return jnp.log10(jnp.maximum(mel_BTF, MEL_FLOOR))


class VocoderModel(nnx.Module):
    """`generator`, and while training maybe `discriminators` and `step_count`."""

    def __init__(
        self,
        generator: bigvgan.BigVgan,
        *,
        critics: discriminators.WaveformDiscriminators | None = None,
    ):
        self.generator = generator
        self.discriminators = critics
        start = jnp.zeros((), jnp.int32)
        self.step_count = None if critics is None else autoencoder.StepCount(start)


class VocoderTask(task_lib.Task):
    """Multi-scale mel loss, and maybe critics with feature matching, on crops of audio."""

    trainable = nnx.Param

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.audio = specs.AudioSpec(**config.audio)
        loss = config.loss
        if len(loss.mel_windows) != len(loss.mel_bins):
            raise ValueError(
                f"config.loss has {len(loss.mel_windows)} mel_windows and {len(loss.mel_bins)} "
                "mel_bins; expected equal numbers"
            )
        samples = loss.crop_frames * self.audio.hop
        if samples <= max(loss.mel_windows) // 2:
            raise ValueError(
                f"config.loss.crop_frames={loss.crop_frames} are {samples} samples, expected more "
                f"than {max(loss.mel_windows) // 2}, half of the longest of mel_windows"
            )
        self.adversarial_weight = loss.get("adversarial_weight", 0.0)
        if self.adversarial_weight and not config.model.get("discriminators"):
            raise ValueError(
                "config.loss.adversarial_weight needs critics; set config.model.discriminators, "
                "e.g. {'channels': 32}"
            )

    def build(self, rngs: nnx.Rngs) -> VocoderModel:
        """A fresh model with float32 parameters."""
        model, dtype = self.config.model, self.config.dtype
        fields = {"num_mels": self.audio.num_mels, **model.vocoder}
        generator = bigvgan.from_config(fields, dtype=dtype, rngs=rngs)
        if (generator.num_mels, generator.hop) != (self.audio.num_mels, self.audio.hop):
            raise ValueError(
                f"config.model.vocoder makes {generator.hop} samples of {generator.num_mels} mel "
                f"bins, config.audio has hop {self.audio.hop} and {self.audio.num_mels} bins; the "
                "product of upsample_rates must be the hop"
            )
        critics = None
        if self.adversarial_weight:
            critics = configured.build(
                discriminators.WaveformDiscriminators,
                model.discriminators,
                dtype=dtype,
                rngs=rngs,
            )
        return VocoderModel(generator, critics=critics)

    def transform(self, *, train: bool) -> task_lib.Transform:
        """A random crop of one record's audio."""
        del train  # the draw depends on (seed, index) alone
        return clips.AudioCrops(audio=self.audio, crop_frames=self.config.loss.crop_frames)

    def crops(self, batch: task_lib.Batch) -> tuple[jax.Array, jax.Array]:
        """Log-mels in [0, 1], [B, F, T], and the audio from their first frame on, [B, L]."""
        count = self.config.loss.crop_frames
        audio_BL = audio_lib.from_pcm16(batch["audio_BL"])
        frame_BT = batch["start_B"][:, None] + jnp.arange(count, dtype=jnp.int32)[None]
        own_mels = partition.shard_map_batch(functools.partial(mel.log_mel_at, spec=self.audio))
        mel_BFT = own_mels(audio_BL[:, None], frame_BT)
        return mel_BFT, mel.audio_at(audio_BL, batch["start_B"], count, self.audio)

    def loss(
        self, model: VocoderModel, batch: task_lib.Batch, key: jax.Array, *, train: bool
    ) -> tuple[jax.Array, task_lib.Metrics]:
        """Weighted mel loss of the made audio, plus the critics' part."""
        del key
        fields = self.config.loss
        mel_BFT, wanted_BL = self.crops(batch)
        made_BL = model.generator(neural.to_unit_input(mel_BFT))
        mel_loss = multi_scale_mel_loss(
            made_BL,
            wanted_BL,
            self.audio.sample_rate_hz,
            windows=fields.mel_windows,
            bins=fields.mel_bins,
        )
        total, metrics = fields.mel_weight * mel_loss, {"mel_loss": mel_loss}
        if model.discriminators is not None:
            extra, more = self._adversarial(model, wanted_BL, made_BL, train=train)
            total, metrics = total + extra, {**metrics, **more}
        return total, metrics

    def _vocoded(self, model: VocoderModel, batch: task_lib.Batch) -> dict[str, jax.Array]:
        """Mels and audio clips of crops, as they are and as the generator makes them."""
        mel_BFT, wanted_BL = self.crops(batch)
        made_BL = model.generator(neural.to_unit_input(mel_BFT))
        own_mels = partition.shard_map_batch(functools.partial(mel.log_mel, spec=self.audio))
        made_BFT = own_mels(made_BL)[..., : mel_BFT.shape[-1]]
        return {"in": mel_BFT, "out": made_BFT, "sound_in": wanted_BL, "sound_out": made_BL}

    def show(
        self, model_fn: Callable[[Callable, task_lib.Batch], Any], batch: task_lib.Batch
    ) -> Mapping[str, task_lib.Image | task_lib.Audio]:
        """Audio in and out, and the mels of both."""
        found = jax.device_get(model_fn(self._vocoded, batch))
        audio_clips = {"in": found["sound_in"], "out": found["sound_out"]}
        return {
            **exhibits.mels({"in": found["in"], "out": found["out"]}),
            **exhibits.audio_clips(audio_clips, self.audio.sample_rate_hz),
        }

    def _adversarial(
        self, model: VocoderModel, real: jax.Array, fake: jax.Array, *, train: bool
    ) -> tuple[jax.Array, task_lib.Metrics]:
        """Critics' loss plus the generator's, in one scalar with separate gradients."""
        judges = discriminator.frozen(model.discriminators)
        of_real, of_fake = judges(real), judges(fake)
        opinion = discriminators.opinion_loss(of_fake)
        features = discriminators.feature_loss(of_real, of_fake)
        critics = model.discriminators
        critic_loss = discriminators.critic_loss(
            critics(real), critics(jax.lax.stop_gradient(fake))
        )
        active = model.step_count[...] >= self.config.loss.get("adversarial_start", 0)
        if train:
            model.step_count[...] = model.step_count[...] + 1
        weight = self.config.loss.get("feature_weight", FEATURE_WEIGHT)
        total = active * (self.adversarial_weight * (opinion + weight * features) + critic_loss)
        metrics = {"critic_loss": critic_loss, "critic_opinion": opinion, "feature_loss": features}
        return total, metrics

    def weight_decay_mask(self, params: Any) -> Any:
        """Decay kernels; no biases or activations."""
        return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)
