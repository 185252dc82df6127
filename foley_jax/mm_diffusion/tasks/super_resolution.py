"""Training of the super-resolution: noise and variance in large images, small ones given.

Batch (B examples, H W large image, h w small image):
  "high_BHWC": uint8 [B, H, W, 3], RGB, one frame of each record.
  "low_BHWC": float32 [B, h, w, 3], the same frame made small and worse, 0 to 255.

Config fields:
  config.video: height, width of the shards' frames and of the large images (256); fps is not
    used.
  config.data.degradation: fields of `degradation.Degradation`; "official" is one of its presets.
  config.model: arguments of `super_resolution.SuperResolution`.
  config.loss.schedule: beta_start, beta_end, num_steps of the linear schedule (optional).
  config.loss.prediction: "eps" (the paper, and where it is missing), "v" or "x0".
Source: real_image_datasets.py, train_util.py and gaussian_diffusion.py (super-resolution).
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from foley_jax.data import clips, records
from foley_jax.diffusion import gaussian, learned_variance
from foley_jax.diffusion import schedule as schedule_lib
from foley_jax.diffusion.samplers import ddim
from foley_jax.media import images, pixels, specs
from foley_jax.mm_diffusion.models import super_resolution
from foley_jax.mm_diffusion.tasks import degradation
from foley_jax.runtime import partition
from foley_jax.training import task as task_lib

SHOWN_STEPS = 10  # of what `show` samples: to see progress, not the best


@dataclasses.dataclass(frozen=True)
class DegradedFrames:
    """One frame of a record and its degraded small version; never mirrored.

    A random frame in training, the middle one else. Example: as in the batch, without B.
    """

    video: specs.VideoSpec
    degrade: degradation.Degradation
    train: bool

    def __call__(
        self, source: Sequence[records.Clip], index: int, rng: np.random.Generator
    ) -> Mapping[str, np.ndarray]:
        clip = source[index]
        if not clip.frames:
            raise ValueError(f"clip {clip.id} of {clip.source} has no frames; training needs them")
        count = len(clip.frames)
        place = int(rng.integers(count)) if self.train else count // 2
        high = clip.frames_THWC(place, place + 1)[0]
        clips.check_size(high, self.video)
        return {"high_BHWC": high, "low_BHWC": self.degrade(high, rng)}


class SuperResolutionTask(task_lib.Task):
    """Trains the whole super-resolution U-Net."""

    trainable = nnx.Param

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.video = specs.VideoSpec(**config.video)
        self.schedule = schedule_lib.linear(**config.loss.get("schedule", {}))
        self.prediction = config.loss.get("prediction", "eps")

    def build(self, rngs: nnx.Rngs) -> super_resolution.SuperResolution:
        """A fresh model with float32 parameters."""
        return super_resolution.from_config(self.config.model, dtype=self.config.dtype, rngs=rngs)

    def transform(self, *, train: bool) -> task_lib.Transform:
        """One frame of one record, large and small."""
        fields = dict(self.config.data.get("degradation", {}))
        if "jpeg_quality" in fields:
            fields["jpeg_quality"] = tuple(fields["jpeg_quality"])
        degrade = degradation.Degradation(**fields)
        return DegradedFrames(video=self.video, degrade=degrade, train=train)

    def loss(
        self,
        model: super_resolution.SuperResolution,
        batch: task_lib.Batch,
        key: jax.Array,
        *,
        train: bool,
    ) -> tuple[jax.Array, task_lib.Metrics]:
        """Mean squared error of the prediction plus the bound on the variance, at one step each.

        Training draws the steps uniformly. Evaluation spreads them evenly over the batch, so that
        losses of different runs can be compared.
        """
        t_key, noise_key = jax.random.split(key)
        high = batch["high_BHWC"].astype(jnp.float32) / 127.5 - 1.0
        low = batch["low_BHWC"].astype(jnp.float32) / 127.5 - 1.0
        t_B = gaussian.draw_steps(self.schedule, high.shape[0], t_key, train=train)
        squares_B, bound_B = learned_variance.training_losses(
            self.schedule,
            lambda x, times_B: model(x, low, times_B),
            high,
            t_B,
            jax.random.normal(noise_key, high.shape),
            self.prediction,
        )
        metrics = {"loss_prediction": squares_B.mean(), "loss_bound": bound_B.mean()}
        return (squares_B + bound_B).mean(), metrics

    def _sampled(
        self, model: super_resolution.SuperResolution, batch: task_lib.Batch
    ) -> dict[str, jax.Array]:
        """Small images, large ones made of them from always the same noise, and the true ones."""
        low = batch["low_BHWC"].astype(jnp.float32) / 127.5 - 1.0
        noise = jax.random.normal(jax.random.key(0), batch["high_BHWC"].shape)
        made = ddim.sample(
            learned_variance.eps_only(
                lambda x, times_B: model(x, low, times_B), self.schedule, self.prediction
            ),
            self.schedule,
            partition.shard_batch(noise),
            num_steps=SHOWN_STEPS,
            offset=0,
            clip_x0=True,
        )
        return {"low": batch["low_BHWC"], "made": made, "high": batch["high_BHWC"]}

    def show(
        self, model_fn: Callable[[Callable, task_lib.Batch], Any], batch: task_lib.Batch
    ) -> Mapping[str, task_lib.Image | task_lib.Audio]:
        """Side by side: the small image, a large one sampled in a few steps, the true one."""
        found = jax.device_get(model_fn(self._sampled, batch))
        shown = {}
        for i, (low, made, high) in enumerate(zip(found["low"], found["made"], found["high"])):
            low = np.clip(np.rint(low), 0, 255).astype(np.uint8)
            factor = len(high) // len(low)
            parts = {
                "small": low.repeat(factor, axis=0).repeat(factor, axis=1),
                f"{SHOWN_STEPS} steps": pixels.to_uint8(made),
                "true": high,
            }
            titled = [images.caption(title, image) for title, image in parts.items()]
            shown[f"picture/{i}"] = task_lib.Image(images.beside(titled))
        return shown
