"""Base of the stages that see windows of latents and CAVP features.

Batch (B examples, P audio clips of L samples each, T mel frames), besides a stage's own:
  "audio_BPL": int16 [B, P, L], the audio clips a window is cut or merged from.
  "mel_frame_BT": int32 [B, T], the window's frames as indices into the P mels laid end to end.

Config fields: config.audio, config.video, and config.loss.schedule (beta_start, beta_end, num_steps
of the scaled-linear schedule; optional).
"""

import functools
from typing import Any, Protocol

import jax
import ml_collections

from foley_jax.diffusion import schedule as schedule_lib
from foley_jax.media import audio as audio_lib
from foley_jax.media import mel, specs
from foley_jax.runtime import partition
from foley_jax.training import task as task_lib


class MelEncoder(Protocol):
    """A model with a frozen autoencoder."""

    def encode_mel(self, mel_BFT: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Mels in [0, 1] -> scaled latents."""


class WindowTask(task_lib.Task):
    """A stage on latents of windows, noised by the scaled-linear schedule."""

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.audio = specs.AudioSpec(**config.audio)
        self.video = specs.VideoSpec(**config.video)
        self.schedule = schedule_lib.scaled_linear(**config.loss.get("schedule", {}))

    def mels(self, batch: task_lib.Batch) -> jax.Array:
        """Log-mels of the windows in [0, 1], float32 [B, F, T]."""
        audio_BPL = audio_lib.from_pcm16(batch["audio_BPL"])
        own_mels = partition.shard_map_batch(functools.partial(mel.log_mel_at, spec=self.audio))
        return own_mels(audio_BPL, batch["mel_frame_BT"])

    def audio_clips(self, batch: task_lib.Batch) -> jax.Array:
        """The first audio from where each window begins, float32 [B, T * hop].

        It is what the window's mel is of, unless it was merged from two.
        """
        frame_BT = batch["mel_frame_BT"]
        audio_BL = audio_lib.from_pcm16(batch["audio_BPL"][:, 0])
        return mel.audio_at(audio_BL, frame_BT[:, 0], frame_BT.shape[1], self.audio)

    def latents(self, model: MelEncoder, batch: task_lib.Batch, key: jax.Array) -> jax.Array:
        """Scaled latents of the windows, a sample of the posterior, without gradient."""
        return jax.lax.stop_gradient(model.encode_mel(self.mels(batch), key=key))

    def weight_decay_mask(self, params: Any) -> Any:
        """Decay everything, as the source's plain AdamW does, but the locality prior."""
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "locality" not in jax.tree_util.keystr(path), params
        )
