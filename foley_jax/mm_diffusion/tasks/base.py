"""Training of the coupled U-Net: noise in video and audio at one step, both with weight 1.

Batch (B examples, F frames, L audio samples):
  "frames_BFHWC": uint8 [B, F, H, W, 3], RGB at `config.video`'s rate and size.
  "audio_BL": int16 [B, L], the audio of those frames at `config.audio`'s rate.

Config fields:
  config.video: fps (10 in the paper), height, width (64).
  config.audio: AudioSpec's; only the rate (16 kHz) is used.
  config.data.num_frames: F (16); L = F / fps * rate (25600).
  config.data.mirror: True shows every image mirrored, as the official training data do by an
    accident of RandomHorizontalFlip(p=True); only to continue the released weights. Default False.
  config.data.companding: mu of the audio's mu-law (0, none, in the paper); see `signals`.
  config.model: arguments of `coupled_unet.CoupledUNet`.
  config.loss.prediction: "eps" (the paper) | "v" | "x0"; config.loss.weighting: "uniform" |
    "inverse_alpha2" | "inverse_sigma2", see `diffusion.process.training_loss`.
  config.loss.schedule: beta_start, beta_end, num_steps of the linear schedule (optional).
Source: multimodal_gaussian_diffusion.py `multimodal_training_losses`, multimodal_train_util.py.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from flax import nnx
import jax
import ml_collections
import numpy as np

from foley_jax.data import clips, records
from foley_jax.diffusion import gaussian
from foley_jax.diffusion import schedule as schedule_lib
from foley_jax.diffusion.samplers import dpm_multistep
from foley_jax.media import images, pixels, specs
from foley_jax.mm_diffusion.models import coupled_unet
from foley_jax.mm_diffusion.sampling import signals, solve
from foley_jax.runtime import partition
from foley_jax.training import task as task_lib

SHOWN_STEPS = 10  # of what `show` samples: to see progress, not the best


@dataclasses.dataclass(frozen=True)
class PairWindows:
    """Frames of one record and their audio, from a random place in training, from the middle else.

    Windows begin at any frame, audio at the time of that frame; audio that ends early is filled
    with silence. A record shorter than the window is repeated. Where the official data code
    differs:
      Every window of a video is an example there, so that a video weighs as much as it has
        windows. Here every record weighs the same, which is the same for videos of one length and
        for long ones cut into records of one length (but no window lies across a cut).
      Videos shorter than the window are passed over there.
      The left channel alone is heard there; here the mean of all.
      From videos that are not at the wanted rate it takes too little audio, by 1 / rate - 1 / fps
        seconds, and ends in silence.
    Example: as in the batch, without B.
    Source: multimodal_datasets.py.
    """

    video: specs.VideoSpec
    audio: specs.AudioSpec
    num_frames: int
    mirror: bool
    train: bool

    def __call__(
        self, source: Sequence[records.Clip], index: int, rng: np.random.Generator
    ) -> Mapping[str, np.ndarray]:
        clip = source[index]
        clips.check_rate(clip, self.video, self.audio)
        available = max(len(clip.frames), self.num_frames)
        line = clips.Timeline.of(
            clip,
            fps=self.video.fps,
            num_frames=available,
            num_samples=self.audio.num_samples(available / self.video.fps),
        )
        last = available - self.num_frames
        start = int(rng.integers(last + 1)) if self.train else last // 2
        wanted = line.index[start : start + self.num_frames]
        used, where = np.unique(wanted, return_inverse=True)
        frames = clip.frames_THWC(int(used[0]), int(used[-1]) + 1)[used - used[0]][where]
        clips.check_size(frames, self.video)
        first = self.audio.num_samples(start / self.video.fps)
        length = self.audio.num_samples(self.num_frames / self.video.fps)
        frames = frames[:, :, ::-1] if self.mirror else frames
        return {
            "frames_BFHWC": np.ascontiguousarray(frames),
            "audio_BL": line.audio[first : first + length],
        }


class CoupledDiffusionTask(task_lib.Task):
    """Trains the whole coupled U-Net."""

    trainable = nnx.Param

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.audio = specs.AudioSpec(**config.audio)
        self.video = specs.VideoSpec(**config.video)
        self.schedule = schedule_lib.linear(**config.loss.get("schedule", {}))
        self.companding = config.data.get("companding", 0.0)

    def build(self, rngs: nnx.Rngs) -> coupled_unet.CoupledUNet:
        """A fresh model with float32 parameters."""
        return coupled_unet.from_config(
            self.config.model,
            frame_s=1.0 / self.video.fps,
            dtype=self.config.dtype,
            rngs=rngs,
        )

    def transform(self, *, train: bool) -> task_lib.Transform:
        """`config.data.num_frames` frames of one record, with their audio."""
        data = self.config.data
        return PairWindows(
            video=self.video,
            audio=self.audio,
            num_frames=data.num_frames,
            mirror=data.get("mirror", False),
            train=train,
        )

    def loss(
        self,
        model: coupled_unet.CoupledUNet,
        batch: task_lib.Batch,
        key: jax.Array,
        *,
        train: bool,
    ) -> tuple[jax.Array, task_lib.Metrics]:
        """Squared errors of both predictions at one step per example, one set of shifts per batch.

        Training draws the steps uniformly. Evaluation drops nothing and spreads the steps evenly
        over the batch, so that losses of different runs can be compared.
        """
        t_key, noise_key, shift_key, dropout_key = jax.random.split(key, 4)
        x0 = signals.to_model(batch["frames_BFHWC"], batch["audio_BL"], companding=self.companding)
        b, num_frames = x0["video"].shape[:2]
        loss = self.config.loss
        video_B, audio_B = losses(
            self.schedule,
            model,
            x0,
            gaussian.draw_steps(self.schedule, b, t_key, train=train),
            gaussian.noise_like(x0, key=noise_key),
            model.draw_shifts(shift_key, num_frames),
            prediction=loss.get("prediction", "eps"),
            weighting=loss.get("weighting", "uniform"),
            dropout_key=dropout_key if train else None,
        )
        metrics = {"loss_video": video_B.mean(), "loss_audio": audio_B.mean()}
        return (video_B + audio_B).mean(), metrics

    def _sampled(
        self, model: coupled_unet.CoupledUNet, batch: task_lib.Batch
    ) -> dict[str, dict[str, jax.Array]]:
        """Clips as they are, and as many from noise, which is always the same."""
        real = signals.to_model(
            batch["frames_BFHWC"], batch["audio_BL"], companding=self.companding
        )
        noise_key, shift_key = jax.random.split(jax.random.key(0))
        about = solve.Denoiser(
            self.schedule,
            self.config.loss.get("prediction", "eps"),
            {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in real.items()},
        )
        made = dpm_multistep.sample(
            solve.eps(model, about, shift_key),
            self.schedule,
            jax.tree.map(partition.shard_batch, gaussian.noise_like(real, key=noise_key)),
            num_steps=SHOWN_STEPS,
            spacing="log_snr",
            threshold=True,
        )
        return {"real": real, "sampled": made}

    def show(
        self, model_fn: Callable[[Callable, task_lib.Batch], Any], batch: task_lib.Batch
    ) -> Mapping[str, task_lib.Image | task_lib.Audio]:
        """Frames and audio of real clips, and of others sampled from noise in a few steps."""
        shown = {}
        for name, clip in jax.device_get(model_fn(self._sampled, batch)).items():
            frames = pixels.to_uint8(clip["video"])
            audio = signals.audio_from_model(clip["audio"], companding=self.companding)
            for i, (frames_FHWC, audio_L) in enumerate(zip(frames, audio)):
                strip = images.caption(name, images.strip(frames_FHWC))
                shown[f"clip_{name}/{i}"] = task_lib.Image(strip)
                shown[f"sound_{name}/{i}"] = task_lib.Audio(audio_L, self.audio.sample_rate_hz)
        return shown


def losses(
    schedule: schedule_lib.Schedule,
    model: coupled_unet.CoupledUNet,
    x0: Mapping[str, jax.Array],
    t_B: jax.Array,
    noise: Mapping[str, jax.Array],
    shifts_N: jax.Array,
    *,
    prediction: gaussian.Prediction = "eps",
    weighting: gaussian.Weighting = "uniform",
    dropout_key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Mean squared error of the prediction in video and in audio, each over its own elements.

    Args:
      x0: "video" [B, F, H, W, 3] and "audio" [B, L, 1], float32 in [-1, 1].
      t_B: int32 steps in [0, num_steps), one per example and for both modalities.
      noise: standard normal, structure of x0.
      shifts_N: int32, see `CoupledUNet.draw_shifts`.
      prediction, weighting: see `gaussian.training_loss`; the paper's by default.
    Returns:
      float32 [B] of the video and of the audio; the training loss is their sum.
    Source: multimodal_gaussian_diffusion.py `multimodal_training_losses`.
    """

    def network(x: Mapping[str, jax.Array], t_B: jax.Array) -> dict[str, jax.Array]:
        video, audio = model(x["video"], x["audio"], t_B, shifts_N, dropout_key=dropout_key)
        return {"video": video, "audio": audio}

    parts = gaussian.part_losses(schedule, network, x0, t_B, noise, prediction, weighting)
    return parts["video"], parts["audio"]
