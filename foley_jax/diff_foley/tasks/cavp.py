"""Stage 1: contrastive training of CAVP on clips of the same and of other videos.

Batch (B videos, N clips each, T frames, L samples):
  "frames_BNTHWC": uint8 [B, N, T, H, W, 3], RGB at `config.video`'s rate and size.
  "audio_BL": int16 [B, L], the audio of the whole video at `config.audio`'s rate.
  "mel_start_BN": int32 [B, N], first mel frame of every clip within that audio.
The mel of the whole audio is made on the device and cut there, so that a clip's edges hold what
lies around it, as in the official shards.
Source: training/open_cavp_main/src (main_wds_intra_contrast.py, data.py, model.py).
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from foley_jax.data import clips
from foley_jax.diff_foley.models import cavp, contrastive
from foley_jax.diff_foley.tasks import exhibits
from foley_jax.media import images, mel, specs
from foley_jax.runtime import partition
from foley_jax.training import task as task_lib

RECALL_KS = (1, 5, 10)
_NO_DECAY = ("bn", "bias", "logit_scale")  # main_wds_intra_contrast.py:280-295


class CavpTask(task_lib.Task):
    """Trains everything; reads `config.model`, `.audio`, `.video`, `.data`, `.loss`.

    `config.loss`: temporal_weight (1 in the paper) and row_weight (0; beyond the paper, the weight
    of `contrastive.moment_loss`, which teaches features when things happen).
    """

    trainable = nnx.Param
    accumulates = False  # every clip is compared with all others of the batch

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.audio = specs.AudioSpec(**config.audio)
        self.video = specs.VideoSpec(**config.video)

    def build(self, rngs: nnx.Rngs) -> cavp.Cavp:
        """A fresh CAVP with float32 parameters."""
        return cavp.from_config(self.config.model, dtype=self.config.dtype, rngs=rngs)

    def transform(self, *, train: bool) -> task_lib.Transform:
        """`config.data.num_clips` clips of `config.data.clip_frames` frames of one record."""
        del train  # the draw depends on (seed, index) alone
        data = self.config.data
        return clips.CavpClips(
            video=self.video,
            audio=self.audio,
            clip_frames=data.clip_frames,
            num_clips=data.num_clips,
            min_gap_frames=data.min_gap_frames,
        )

    def features(
        self, model: cavp.Cavp, batch: task_lib.Batch, key: jax.Array | None, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Features (video, audio) of every clip before the norm, float32 [B*N, T, D]."""
        frames = batch["frames_BNTHWC"]
        b, n, t = frames.shape[:3]
        mel_frames = round(t / self.video.fps / self.audio.frame_s)
        own_mels = partition.shard_map_batch(functools.partial(mel.log_mel, spec=self.audio))
        mel_BFT = own_mels(pcm_to_float(batch["audio_BL"]))
        clips_BNFT = cut_clips(mel_BFT, batch["mel_start_BN"], mel_frames)
        options = {"normalize": False, "pool": False, "train": train}
        # [B, N, ...] -> [B*N, ...], clip-fastest
        video = model.encode_video(
            frames.reshape(b * n, *frames.shape[2:]).astype(jnp.float32) / 255.0, **options
        )
        audio = model.encode_spec(
            clips_BNFT.reshape(b * n, *clips_BNFT.shape[2:]), key=key, **options
        )
        return video, audio

    def encode(
        self, model: cavp.Cavp, batch: task_lib.Batch, key: jax.Array | None, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Pooled unit features (video, audio) of every clip, each float32 [B, N, D]."""
        b, n = batch["mel_start_BN"].shape
        video, audio = self.features(model, batch, key, train=train)
        return tuple(cavp.unit_features(x.max(axis=1)).reshape(b, n, -1) for x in (video, audio))

    def loss(
        self, model: cavp.Cavp, batch: task_lib.Batch, key: jax.Array, *, train: bool
    ) -> tuple[jax.Array, task_lib.Metrics]:
        """Semantic + temporal contrast over the global batch, + `row_weight` * that of moments."""
        video, audio = self.features(model, batch, key, train=train)
        scale = jnp.exp(model.logit_scale[...])
        total, metrics = contrastive.contrastive_loss(
            cavp.unit_features(video.max(axis=1)),
            cavp.unit_features(audio.max(axis=1)),
            scale,
            num_clips=batch["mel_start_BN"].shape[1],
            temporal_weight=self.config.loss.temporal_weight,
        )
        metrics = {**metrics, "logit_scale": scale}
        row_weight = self.config.loss.get("row_weight", 0.0)
        if row_weight:
            audio_s = model.spec_encoder.time_reduction * self.audio.frame_s
            moments = contrastive.same_moments(
                *(cavp.unit_features(x) for x in (video, audio)), 1.0 / self.video.fps, audio_s
            )
            rows = contrastive.moment_loss(*moments, scale)
            total, metrics = total + row_weight * rows, {**metrics, "rows": rows}
        return total, metrics

    def weight_decay_mask(self, params: Any) -> Any:
        """Decay matrices and kernels; no norms, biases or the logit scale."""

        def decays(path: tuple[Any, ...], leaf: jax.Array) -> bool:
            name = jax.tree_util.keystr(path)
            return leaf.ndim >= 2 and not any(word in name for word in _NO_DECAY)

        return jax.tree_util.tree_map_with_path(decays, params)

    def constrain(self, params: Any) -> Any:
        """Keeps the logit scale in [0, ln 100], as the official loop does after every step."""
        if "logit_scale" not in params:  # frozen
            return params
        scale = jnp.clip(params["logit_scale"], 0.0, cavp.LOGIT_SCALE_MAX)
        return {**params, "logit_scale": scale}

    def _encode_eval(self, model: cavp.Cavp, batch: task_lib.Batch) -> tuple[jax.Array, jax.Array]:
        # a method and not a closure: `model_fn` keeps one compiled program for it
        return self.encode(model, batch, None, train=False)

    def evaluate(
        self,
        model_fn: Callable[[Callable, task_lib.Batch], Any],
        batches: Sequence[task_lib.Batch],
    ) -> Mapping[str, float]:
        """Retrieval among one clip per held-out video, and which clip of a video audio is from.

        Returns:
          "recall{1,5,10}_{v2a,a2v}" over at most `config.eval_clips` videos (0 or absent: all),
          "temporal_accuracy" (chance 1/N), "num_videos" (chance of recall1 is 1/num_videos).
        """

        features = [jax.device_get(model_fn(self._encode_eval, batch)) for batch in batches]
        limit = self.config.get("eval_clips", 0) or None
        video, audio = (np.concatenate(side)[:limit] for side in zip(*features))
        middle = video.shape[1] // 2
        result = {"num_videos": float(len(video))}
        pairs = {"v2a": (video, audio), "a2v": (audio, video)}
        for name, (query, target) in pairs.items():
            recall = contrastive.recall_at_k(query[:, middle], target[:, middle], RECALL_KS)
            result.update({f"recall{k}_{name}": value for k, value in recall.items()})
        result["temporal_accuracy"] = contrastive.temporal_accuracy(video, audio)
        return result

    def _compared(self, model: cavp.Cavp, batch: task_lib.Batch) -> dict[str, jax.Array]:
        """The first clip of every video, and how alike the features of all its clips are."""
        frames_BNTHWC, start_BN = batch["frames_BNTHWC"], batch["mel_start_BN"]
        mel_frames = round(frames_BNTHWC.shape[2] / self.video.fps / self.audio.frame_s)
        audio_BL = pcm_to_float(batch["audio_BL"])
        clips_BNFT = cut_clips(mel.log_mel(audio_BL, self.audio), start_BN[:, :1], mel_frames)
        # [B*N, T, D] -> [B, N*T, D]
        video, audio = (
            cavp.unit_features(x).reshape(len(start_BN), -1, x.shape[-1])
            for x in self.features(model, batch, None, train=False)
        )
        return {
            "frames": frames_BNTHWC[:, 0],
            "mel": clips_BNFT[:, 0],
            "sound": mel.audio_at(audio_BL, start_BN[:, 0], mel_frames, self.audio),
            "alike": jnp.einsum("bvd,bad->bva", video, audio),
        }

    def show(
        self, model_fn: Callable[[Callable, task_lib.Batch], Any], batch: task_lib.Batch
    ) -> Mapping[str, task_lib.Image | task_lib.Audio]:
        """A clip's frames, mel and audio; cosines of features, video's down and audio's right.

        Cosines are of all clips of the video, one after the other: a trained model has a bright
        diagonal, of squares where it knows clips and of points where it knows moments.
        """
        found = jax.device_get(model_fn(self._compared, batch))
        shown = exhibits.audio_clips({"of_clip": found["sound"]}, self.audio.sample_rate_hz)
        for i, (frames, mel_FT, alike) in enumerate(
            zip(found["frames"], found["mel"], found["alike"])
        ):
            strip = images.strip(frames)
            # every frame stands above its time
            clip = images.below([strip, images.stretch(images.mel(mel_FT), strip.shape[1])])
            table = images.heat(alike, -1.0, 1.0, cell=max(1, 256 // len(alike)))
            shown[f"clip/{i}"] = task_lib.Image(images.caption("frames and mel", clip))
            title = "cosines, video down, audio right"
            shown[f"rows/{i}"] = task_lib.Image(images.caption(title, table))
        return shown


def pcm_to_float(audio_BL: jax.Array) -> jax.Array:
    """int16 PCM -> float32 in [-1, 1)."""
    return audio_BL.astype(jnp.float32) / 32768.0


def cut_clips(mel_BFT: jax.Array, start_BN: jax.Array, num_frames: int) -> jax.Array:
    """Cuts N stretches of `num_frames` mel frames out of each audio clip: [B, N, F, num_frames].

    A start beyond the last possible one is moved back to it.
    """
    if mel_BFT.shape[-1] < num_frames:
        raise ValueError(f"the audio has {mel_BFT.shape[-1]} mel frames, a clip needs {num_frames}")

    def cut(mel_FT: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(mel_FT, start, num_frames, axis=-1)

    return jax.vmap(jax.vmap(cut, in_axes=(None, 0)))(mel_BFT, start_BN)
