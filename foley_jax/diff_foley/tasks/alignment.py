"""The alignment classifier: do this audio and this video belong together, and at this time?

Batch (B examples, L samples, T mel frames, L' features of width D):
  "audio_BPL": int16 [B, 1, L], the audio a window is cut from.
  "mel_frame_BT": int32 [B, T], the window's frames in the audio's mel.
  "cavp_BLD": float [B, L', D], features.
  "context_s_BL": float32 [B, L'], seconds of each feature relative to the start of the window.
  "pair_B": int32 [B], index into `pairs.KINDS`: only pairs of kind 0 match.

Config fields:
  config.audio: AudioSpec's (hop 256 in the paper).
  config.data: window_frames, num_rows, true_share, shifted_share, min_shift_s (see
    `pairs.AlignmentPairs`).
  config.model.classifier: arguments of `alignment.AlignmentClassifier`; column_s follows from
    audio and autoencoder by default.
  config.model.conditioner: in_dim, out_dim, max_len, feature_gain, position_std.
  config.model.autoencoder, latent_scale: as that stage had them; usually grafted.
  config.loss.noised: True noises the latents to a random step (the guidance classifier); False
    leaves them clean at step 0 (the evaluation classifier).
  config.loss.schedule: beta_start, beta_end, num_steps of the scaled-linear schedule (optional).
Source: Diff-Foley alignment_classifier.py:226-246, alignment_classifier_metric.py:243-252.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.data import pairs
from foley_jax.diff_foley.models import alignment
from foley_jax.diff_foley.tasks import exhibits, window_task
from foley_jax.diffusion import gaussian
from foley_jax.training import task as task_lib

MATCH = pairs.KINDS.index("true")


class AlignmentTask(window_task.WindowTask):
    """Trains classifier and conditioner; the autoencoder and its scale are frozen."""

    trainable = nnx.All(
        nnx.Param, nnx.Any(nnx.PathContains("classifier"), nnx.PathContains("conditioner"))
    )

    def build(self, rngs: nnx.Rngs) -> alignment.AlignmentModel:
        """A fresh model with float32 parameters."""
        return alignment.from_config(
            self.config.model,
            frame_s=self.audio.frame_s,
            feature_s=1.0 / self.video.fps,
            dtype=self.config.dtype,
            rngs=rngs,
        )

    def transform(self, *, train: bool) -> task_lib.Transform:
        """Pairs in the same proportions for training and evaluation."""
        del train  # the draw depends on (seed, index) alone
        data = self.config.data
        return pairs.AlignmentPairs(
            video=self.video,
            audio=self.audio,
            window_frames=data.window_frames,
            num_features=data.num_rows,
            true_share=data.true_share,
            shifted_share=data.shifted_share,
            min_shift_s=data.min_shift_s,
        )

    def logits(
        self,
        model: alignment.AlignmentModel,
        batch: task_lib.Batch,
        key: jax.Array,
        *,
        train: bool,
    ) -> jax.Array:
        """Logits float32 [B] of a batch, at the steps that `loss` says."""
        latent_key, t_key, noise_key = jax.random.split(key, 3)
        x_BHWC = self.latents(model, batch, latent_key)
        b = x_BHWC.shape[0]
        t_B = jnp.zeros(b, jnp.int32)
        if self.config.loss.noised:
            t_B = gaussian.draw_steps(self.schedule, b, t_key, train=train)
            noise = gaussian.noise_like(x_BHWC, key=noise_key)
            x_BHWC = gaussian.q_sample(self.schedule, x_BHWC, t_B, noise)
        features_BLD = batch["cavp_BLD"].astype(jnp.float32)
        times = batch["context_s_BL"]
        return model.logits(x_BHWC, t_B.astype(jnp.float32), features_BLD, context_s_BL=times)

    def loss(
        self,
        model: alignment.AlignmentModel,
        batch: task_lib.Batch,
        key: jax.Array,
        *,
        train: bool,
    ) -> tuple[jax.Array, task_lib.Metrics]:
        """Binary cross-entropy of "these match", mean over the batch.

        With `config.loss.noised`, training draws the steps uniformly; evaluation spreads them
        evenly over the batch, so that losses of different runs can be compared.
        """
        logit_B = self.logits(model, batch, key, train=train)
        match_B = batch["pair_B"] == MATCH
        loss_B = jax.nn.softplus(jnp.where(match_B, -logit_B, logit_B))
        right_B = (logit_B > 0) == match_B
        metrics = {"accuracy": right_B.mean()}
        for number, kind in enumerate(pairs.KINDS):
            ours_B = batch["pair_B"] == number
            # a kind that a batch lacks counts as a coin's throw
            share = (right_B * ours_B).sum() / jnp.maximum(ours_B.sum(), 1)
            metrics[f"accuracy_{kind}"] = jnp.where(ours_B.any(), share, 0.5)
        return loss_B.mean(), metrics

    def evaluate(
        self,
        model_fn: Callable[[Callable, task_lib.Batch], Any],
        batches: Sequence[task_lib.Batch],
    ) -> Mapping[str, float]:
        """The accuracies over all batches together; of a kind that never occurs, none."""

        def scored(model, batch, number):
            key = jax.random.fold_in(jax.random.key(0), number)
            return self.logits(model, batch, key, train=False), batch["pair_B"]

        found = [jax.device_get(model_fn(scored, b, np.int32(i))) for i, b in enumerate(batches)]
        logit_N, pair_N = (np.concatenate(parts) for parts in zip(*found, strict=True))
        right_N = (logit_N > 0) == (pair_N == MATCH)
        metrics = {"accuracy": float(right_N.mean())}
        for number, kind in enumerate(pairs.KINDS):
            if (pair_N == number).any():
                metrics[f"accuracy_{kind}"] = float(right_N[pair_N == number].mean())
        return metrics

    def _judged(
        self, model: alignment.AlignmentModel, batch: task_lib.Batch
    ) -> dict[str, jax.Array]:
        """Mels and audio clips of pairs, and what the model says of their clean latents."""
        mel_BFT = self.mels(batch)
        logit_B = model.logits(
            model.encode_mel(mel_BFT),
            jnp.zeros(len(mel_BFT), jnp.float32),
            batch["cavp_BLD"].astype(jnp.float32),
            context_s_BL=batch["context_s_BL"],
        )
        return {
            "mel": mel_BFT,
            "sound": self.audio_clips(batch),
            "pair": batch["pair_B"],
            "score": jax.nn.sigmoid(logit_B),
        }

    def show(
        self, model_fn: Callable[[Callable, task_lib.Batch], Any], batch: task_lib.Batch
    ) -> Mapping[str, task_lib.Image | task_lib.Audio]:
        """Mels and audio clips of pairs, with the probability that the model gives to a match."""
        found = jax.device_get(model_fn(self._judged, batch))
        notes = [
            f"{pairs.KINDS[pair]}, p(match) = {score:.3f}"
            for pair, score in zip(found["pair"], found["score"])
        ]
        return {
            **exhibits.mels({"pair": found["mel"]}, notes=notes),
            **exhibits.audio_clips({"of_pair": found["sound"]}, self.audio.sample_rate_hz),
        }
