"""The mel autoencoder, for those who do not start from Stable Diffusion's.

Batch (B audio clips, L samples):
  "audio_BL": int16 [B, L], mono audio at `config.audio.sample_rate_hz`.
  "start_B": int32 [B], first mel frame of the crop, in [0, 1 + L // hop - crop_frames].

Config fields:
  config.audio: AudioSpec's.
  config.model.autoencoder: arguments of `autoencoder.AutoencoderKL` (in_channels, out_channels,
    z_channels, ch, ch_mult, num_res_blocks, attention, patch, num_groups).
  config.model.latent_scale: where the running 1 / std of the latents starts (default 0.18215).
  config.model.discriminator: arguments of `discriminator.PatchDiscriminator` (channels,
    num_layers, num_groups); absent or None: no critic.
  config.loss.crop_frames: mel frames of one example.
  config.loss.reconstruction: "l1" | "l2".
  config.loss.kl_weight: weight of the KL, which is summed over the latent and divided by the
    number of pixels (SD's proportions: 1e-6).
  config.loss.scale_momentum: of the running std (default 0.99).
  config.loss.adversarial_weight, adversarial_start: weight of the critic's opinion and the step
    at which it starts to count (default 0 and 0); a weight above 0 needs the discriminator.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections

from foley_jax.data import clips
from foley_jax.diff_foley.models import autoencoder, discriminator, latent_diffusion
from foley_jax.diff_foley.tasks import exhibits
from foley_jax.layers import configured
from foley_jax.media import audio as audio_lib
from foley_jax.media import mel, specs
from foley_jax.runtime import partition
from foley_jax.training import task as task_lib
from foley_jax.vocoders import griffin_lim

SCALE_MOMENTUM = 0.99


class StepCount(nnx.Variable):
    """Updates done so far, int32; saved with the model, never trained."""


class AutoencoderModel(nnx.Module):
    """`autoencoder`, `latent_scale`, and while training maybe `discriminator` and `step_count`."""

    def __init__(
        self,
        first_stage: autoencoder.AutoencoderKL,
        *,
        latent_scale: float = latent_diffusion.LATENT_SCALE,
        critic: discriminator.PatchDiscriminator | None = None,
    ):
        self.autoencoder = first_stage
        self.latent_scale = latent_diffusion.LatentScale(jnp.asarray(latent_scale, jnp.float32))
        self.discriminator = critic
        self.step_count = None if critic is None else StepCount(jnp.zeros((), jnp.int32))


class AutoencoderTask(task_lib.Task):
    """Reconstruction + KL (+ a critic) on crops of log-mels; tracks the scale of the latents."""

    trainable = nnx.Param

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.audio = specs.AudioSpec(**config.audio)
        if config.loss.reconstruction not in ("l1", "l2"):
            raise ValueError(
                f"config.loss.reconstruction is {config.loss.reconstruction!r}, use 'l1' or 'l2'"
            )
        self.adversarial_weight = config.loss.get("adversarial_weight", 0.0)
        if self.adversarial_weight and not config.model.get("discriminator"):
            raise ValueError(
                "config.loss.adversarial_weight needs a critic; set config.model.discriminator, "
                "e.g. {'channels': 64, 'num_layers': 3}"
            )

    def build(self, rngs: nnx.Rngs) -> AutoencoderModel:
        """A fresh model with float32 parameters."""
        fields, dtype = self.config.model, self.config.dtype
        first_stage = autoencoder.from_config(fields.autoencoder, dtype=dtype, rngs=rngs)
        critic = None
        if self.adversarial_weight:
            critic = configured.build(
                discriminator.PatchDiscriminator,
                {"in_channels": first_stage.out_channels, **fields.discriminator},
                dtype=dtype,
                rngs=rngs,
            )
        scale = fields.get("latent_scale", latent_diffusion.LATENT_SCALE)
        return AutoencoderModel(first_stage, latent_scale=scale, critic=critic)

    def transform(self, *, train: bool) -> task_lib.Transform:
        """A random crop of one record's audio."""
        del train  # the draw depends on (seed, index) alone
        return clips.AudioCrops(audio=self.audio, crop_frames=self.config.loss.crop_frames)

    def crops(self, batch: task_lib.Batch) -> jax.Array:
        """Log-mel crops in [0, 1], float32 [B, num_mels, crop_frames]."""
        offsets_T = jnp.arange(self.config.loss.crop_frames, dtype=jnp.int32)
        frame_BT = batch["start_B"][:, None] + offsets_T[None]
        audio_B1L = audio_lib.from_pcm16(batch["audio_BL"])[:, None]
        own_mels = partition.shard_map_batch(functools.partial(mel.log_mel_at, spec=self.audio))
        return own_mels(audio_B1L, frame_BT)

    def loss(
        self, model: AutoencoderModel, batch: task_lib.Batch, key: jax.Array, *, train: bool
    ) -> tuple[jax.Array, task_lib.Metrics]:
        """Reconstruction of a posterior sample (its mean when not training) plus weighted KL."""
        first_stage = model.autoencoder
        mel_BFT = self.crops(batch)
        mean, logvar = first_stage.encode(
            latent_diffusion.to_image(mel_BFT, first_stage.in_channels)
        )
        z = autoencoder.sample(mean, logvar, key=key if train else None)
        made = first_stage.decode(z)
        wanted = latent_diffusion.to_image(mel_BFT, first_stage.out_channels)
        error = made - wanted
        l1, l2 = jnp.abs(error).mean(), jnp.square(error).mean()
        kl_B = autoencoder.kl_divergence(mean, logvar)
        kl = kl_B.mean() / (made.size / made.shape[0])  # nats per pixel
        total = l1 if self.config.loss.reconstruction == "l1" else l2
        total = total + self.config.loss.kl_weight * kl
        metrics = {"l1": l1, "l2": l2, "kl": kl, "latent_scale": model.latent_scale[...]}
        if train:
            self.track_scale(model, z)
        if model.discriminator is not None:
            extra, more = self._adversarial(model, wanted, made, train=train)
            total, metrics = total + extra, {**metrics, **more}
        return total, metrics

    def track_scale(self, model: AutoencoderModel, z: jax.Array) -> None:
        """Moves `model.latent_scale` towards 1 / std of the latents `z`."""
        momentum = self.config.loss.get("scale_momentum", SCALE_MOMENTUM)
        std = momentum / model.latent_scale[...] + (1 - momentum) * jnp.std(z)
        model.latent_scale[...] = jax.lax.stop_gradient(1.0 / std)

    def _adversarial(
        self, model: AutoencoderModel, real: jax.Array, fake: jax.Array, *, train: bool
    ) -> tuple[jax.Array, task_lib.Metrics]:
        """Critic's loss plus the autoencoder's, in one scalar with separate gradients."""
        opinion = -discriminator.frozen(model.discriminator)(fake).mean()
        critic_loss = discriminator.hinge_loss(
            model.discriminator(real), model.discriminator(jax.lax.stop_gradient(fake))
        )
        active = model.step_count[...] >= self.config.loss.get("adversarial_start", 0)
        if train:
            model.step_count[...] = model.step_count[...] + 1
        total = active * (self.adversarial_weight * opinion + critic_loss)
        return total, {"critic_loss": critic_loss, "critic_opinion": opinion}

    def _rebuilt(self, model: AutoencoderModel, batch: task_lib.Batch) -> dict[str, jax.Array]:
        """Crops and what comes back of them; both by Griffin-Lim, to compare them."""
        first_stage, wanted_BFT = model.autoencoder, self.crops(batch)
        mean, _ = first_stage.encode(latent_diffusion.to_image(wanted_BFT, first_stage.in_channels))
        made_BFT = jnp.clip(first_stage.decode(mean)[..., 0], 0.0, 1.0)
        return {
            "wanted": wanted_BFT,
            "made": made_BFT,
            "sound_wanted": griffin_lim.mel_to_audio(wanted_BFT, self.audio),
            "sound_made": griffin_lim.mel_to_audio(made_BFT, self.audio),
        }

    def show(
        self, model_fn: Callable[[Callable, task_lib.Batch], Any], batch: task_lib.Batch
    ) -> Mapping[str, task_lib.Image | task_lib.Audio]:
        """Mels in and out, and the audio of both."""
        found = jax.device_get(model_fn(self._rebuilt, batch))
        audio_clips = {"in": found["sound_wanted"], "out": found["sound_made"]}
        return {
            **exhibits.mels({"in": found["wanted"], "out": found["made"]}),
            **exhibits.audio_clips(audio_clips, self.audio.sample_rate_hz),
        }

    def weight_decay_mask(self, params: Any) -> Any:
        """Decay kernels; no norms or biases."""
        return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)
