"""Stage 2: latent diffusion of mels, conditioned on CAVP features.

Batch (B examples, P source audio clips of L samples each, T mel frames, L' features of width D):
  "audio_BPL": int16 [B, P, L], the audio clips a window is cut or merged from.
  "mel_frame_BT": int32 [B, T], the window's frames as indices into the P mels laid end to end;
    each has 1 + L // hop frames.
  "cavp_BLD": float [B, L', D], the window's features.
  "context_s_BL": float32 [B, L'], seconds of each feature relative to the start of the window.

Config fields:
  config.audio: AudioSpec's (hop 256 in the paper).
  config.video: its fps are those of the features.
  config.data: window_frames, num_rows, merge_probability, aligned (see `clips.LdmWindows`).
  config.model.unet: arguments of `unet.UNet` (in_channels, out_channels, model_channels,
    channel_mult, num_res_blocks, attention_downsamples, self_attention_downsamples,
    middle_self_attention, num_heads, context_dim, depth, num_groups, locality_bias, column_s,
    feature_s, remat, attention_implementation); by default column_s follows from audio and
    autoencoder, feature_s from video.fps.
  config.model.autoencoder: arguments of `autoencoder.AutoencoderKL`, as that stage had them.
  config.model.conditioner: in_dim, out_dim, max_len, feature_gain, position_std.
  config.model.latent_scale: default 0.18215; usually grafted together with the autoencoder.
  config.loss.prediction: "eps" | "v" | "x0".
  config.loss.weighting: "uniform" | "inverse_alpha2".
  config.loss.condition_dropout: share of examples trained without condition (0.2).
  config.loss.schedule: beta_start, beta_end, num_steps of the scaled-linear schedule (optional).
Source: Diff-Foley adm/models/diffusion/ddpm.py `LatentDiffusion`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.data import clips
from foley_jax.diff_foley.models import latent_diffusion
from foley_jax.diff_foley.tasks import exhibits, window_task
from foley_jax.diffusion import gaussian, guidance
from foley_jax.diffusion.samplers import dpm_multistep
from foley_jax.runtime import partition
from foley_jax.training import task as task_lib
from foley_jax.vocoders import griffin_lim

SHOWN_STEPS, SHOWN_GUIDANCE = 10, 3.0  # of what `show` samples: to see progress, not the best


class LatentDiffusionTask(window_task.WindowTask):
    """Trains the U-Net and the conditioner; the autoencoder and its scale are frozen."""

    trainable = nnx.All(
        nnx.Param, nnx.Any(nnx.PathContains("unet"), nnx.PathContains("conditioner"))
    )

    def build(self, rngs: nnx.Rngs) -> latent_diffusion.LatentDiffusion:
        """A fresh model with float32 parameters."""
        return latent_diffusion.from_config(
            self.config.model,
            frame_s=self.audio.frame_s,
            feature_s=1.0 / self.video.fps,
            dtype=self.config.dtype,
            rngs=rngs,
        )

    def transform(self, *, train: bool) -> task_lib.Transform:
        """Windows cut from one record, or merged from two; only cut ones for evaluation."""
        data = self.config.data
        return clips.LdmWindows(
            video=self.video,
            audio=self.audio,
            window_frames=data.window_frames,
            num_features=data.num_rows,
            merge_probability=data.merge_probability if train else 0.0,
            aligned=data.aligned,
        )

    def loss(
        self,
        model: latent_diffusion.LatentDiffusion,
        batch: task_lib.Batch,
        key: jax.Array,
        *,
        train: bool,
    ) -> tuple[jax.Array, task_lib.Metrics]:
        """Mean squared error of the prediction at one step per example.

        Training draws the steps uniformly and drops the condition of some examples. Evaluation
        keeps every condition and spreads the steps evenly over the batch, so that losses of
        different runs can be compared.
        """
        latent_key, t_key, noise_key, drop_key = jax.random.split(key, 4)
        z_BHWC = self.latents(model, batch, latent_key)
        b = z_BHWC.shape[0]
        features_BLD = batch["cavp_BLD"].astype(jnp.float32)
        if train:
            kept = 1.0 - self.config.loss.condition_dropout
            keep_B = jax.random.bernoulli(drop_key, kept, (b,))
            # the raw features are dropped: the null condition is the conditioner of zeros
            features_BLD = jnp.where(keep_B[:, None, None], features_BLD, 0.0)
        t_B = gaussian.draw_steps(self.schedule, b, t_key, train=train)
        context_BLD = model.conditioner(features_BLD)

        def network(x_BHWC: jax.Array, t_B: jax.Array) -> jax.Array:
            times = batch["context_s_BL"]
            return model.denoise(x_BHWC, t_B, context_BLD, context_s_BL=times)

        loss_B = gaussian.training_loss(
            self.schedule,
            network,
            z_BHWC,
            t_B,
            gaussian.noise_like(z_BHWC, key=noise_key),
            prediction=self.config.loss.prediction,
            weighting=self.config.loss.weighting,
        )
        early = t_B < self.schedule.num_steps // 2  # the less noisy half
        share = lambda mask: (loss_B * mask).sum() / jnp.maximum(mask.sum(), 1)  # noqa: E731
        metrics = {
            "loss_low_noise": share(early),
            "loss_high_noise": share(~early),
            "latent_std": jnp.std(z_BHWC),
        }
        return loss_B.mean(), metrics

    def _sampled(
        self, model: latent_diffusion.LatentDiffusion, batch: task_lib.Batch
    ) -> dict[str, jax.Array]:
        """Mels and audio of windows, as they are and sampled; the noise is always the same."""
        real_BFT = self.mels(batch)
        shape = model.latent_shape(*real_BFT.shape[1:])
        noise = jax.random.normal(jax.random.key(0), (len(real_BFT), *shape))
        features_BLD, times_BL = batch["cavp_BLD"].astype(jnp.float32), batch["context_s_BL"]

        def network(x_BHWC: jax.Array, t_B: jax.Array, both: tuple) -> jax.Array:
            context_BLD, times_BL = both
            return model.denoise(x_BHWC, t_B, context_BLD, context_s_BL=times_BL)

        denoise = guidance.classifier_free(
            network,
            (model.conditioner(features_BLD), times_BL),
            (model.conditioner(jnp.zeros_like(features_BLD)), times_BL),
            SHOWN_GUIDANCE,
        )
        z_BHWC = dpm_multistep.sample(
            gaussian.as_eps(denoise, self.schedule, self.config.loss.prediction),
            self.schedule,
            partition.shard_batch(noise),
            num_steps=SHOWN_STEPS,
        )
        made_BFT = jnp.clip(model.decode_mel(z_BHWC), 0.0, 1.0)
        return {
            "real": real_BFT,
            "made": made_BFT,
            "sound_real": self.audio_clips(batch),
            "sound_made": griffin_lim.mel_to_audio(made_BFT, self.audio),
        }

    def show(
        self, model_fn: Callable[[Callable, task_lib.Batch], Any], batch: task_lib.Batch
    ) -> Mapping[str, task_lib.Image | task_lib.Audio]:
        """Mel and audio of windows, beside those sampled for their features in a few steps."""
        found = jax.device_get(model_fn(self._sampled, batch))
        caption = f"sampled, {SHOWN_STEPS} steps, guidance {SHOWN_GUIDANCE:g}"
        audio_clips = {"real": found["sound_real"], "sampled": found["sound_made"]}
        return {
            **exhibits.mels({"real": found["real"], caption: found["made"]}),
            **exhibits.audio_clips(audio_clips, self.audio.sample_rate_hz),
        }
