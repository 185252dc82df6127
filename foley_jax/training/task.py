"""The contract of a training stage; the loop knows nothing else about it.

A task is built from a config alone. Its model is an `nnx.Module`; the loop splits it into
`params` (what `trainable` selects: gradient, optimizer moments, EMA) and `rest` (frozen weights,
BatchNorm statistics), both nested dicts of arrays, and merges them again inside the jitted step.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import importlib
from typing import Any, Protocol

from flax import nnx
import jax
import ml_collections
import numpy as np

from foley_jax.training import adapters, freeze

Batch = Mapping[str, jax.Array]
Metrics = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Image:
    """An image that a task shows: uint8 RGB [H, W, 3]."""

    pixels_HWC: np.ndarray

    def __post_init__(self):
        shape, dtype = self.pixels_HWC.shape, self.pixels_HWC.dtype
        if dtype != np.uint8 or len(shape) != 3 or shape[-1] != 3 or not all(shape):
            raise ValueError(f"an image is {dtype}{list(shape)}, expected uint8 [H, W, 3]")


@dataclasses.dataclass(frozen=True)
class Audio:
    """An audio clip that a task lets hear: mono, float in about [-1, 1] or int16, [samples]."""

    audio_L: np.ndarray
    sample_rate_hz: int

    def __post_init__(self):
        if self.audio_L.ndim != 1 or not np.isfinite(self.audio_L).all():
            raise ValueError(
                f"audio has shape {list(self.audio_L.shape)}, expected finite [samples] (mono)"
            )


class Transform(Protocol):
    """Makes one example from a random-access source of decoded records.

    Host code (NumPy only): it runs in read threads or worker processes.
    """

    def __call__(
        self, source: Sequence[Any], index: int, rng: np.random.Generator
    ) -> Mapping[str, np.ndarray]: ...


class Task(Protocol):
    """One training stage; a stage that derives from it inherits the defaults.

    Attributes:
      config: the run's config; `config.model`, `config.data`, `config.loss` are the task's own.
      trainable: an nnx filter; everything it selects must be an `nnx.Param`.
      video: the VideoSpec of the images it trains on; None if it needs none.
      accumulates: the loss is a mean over examples, so that a batch may be cut into parts.
    """

    config: ml_collections.ConfigDict
    trainable: Any
    video: Any = None
    accumulates: bool = True

    def build(self, rngs: nnx.Rngs) -> nnx.Module:
        """The whole model, freshly initialised, float32 parameters."""

    def transform(self, *, train: bool) -> Transform:
        """Record -> example. `train=False` is deterministic in the index."""

    def loss(
        self, model: nnx.Module, batch: Batch, key: jax.Array, *, train: bool
    ) -> tuple[jax.Array, Metrics]:
        """Scalar float32 loss and scalar metrics of a global batch; may update BatchNorm."""

    def weight_decay_mask(self, params: Any) -> Any:
        """Pytree of bools, True where weight decay applies; plain AdamW's default: all."""
        return jax.tree.map(lambda _: True, params)

    def constrain(self, params: Any) -> Any:
        """Projection after each update (e.g. the logit-scale clamp); by default none."""
        return params

    def evaluate(
        self, model_fn: Callable[[Callable, Batch], Any], batches: Sequence[Batch]
    ) -> Mapping[str, float]:
        """Host metrics over a held-out set, beyond the mean loss (e.g. retrieval R@1).

        `model_fn(fn, batch)` runs `fn(model, batch)` jitted with the current parameters.
        By default there are none.
        """
        del model_fn, batches
        return {}

    def show(
        self, model_fn: Callable[[Callable, Batch], Any], batch: Batch
    ) -> Mapping[str, Image | Audio]:
        """A few held-out examples to look at and to listen to; by default none.

        `model_fn(fn, batch)` runs `fn(model, batch)` jitted with the current parameters and gives
        the first `config.show_examples` features of every result, which must have the examples as
        their leading axis. Every process calls this and takes part in the programs, so what the
        host does must not depend on the process. Names as "mel/0": what, and which example.
        """
        del model_fn, batch
        return {}


# name in the config -> module:class, imported only when asked for
TASKS = {
    "cavp": "foley_jax.diff_foley.tasks.cavp:CavpTask",
    "autoencoder": "foley_jax.diff_foley.tasks.autoencoder:AutoencoderTask",
    "ldm": "foley_jax.diff_foley.tasks.ldm:LatentDiffusionTask",
    "distilled": "foley_jax.diff_foley.tasks.distilled:DistilledTask",
    "alignment": "foley_jax.diff_foley.tasks.alignment:AlignmentTask",
    "vocoder": "foley_jax.diff_foley.tasks.vocoder:VocoderTask",
    "mm_diffusion": "foley_jax.mm_diffusion.tasks.base:CoupledDiffusionTask",
    "mmaudio": "foley_jax.mmaudio.tasks.flow:FlowTask",
    "mmaudio_distilled": "foley_jax.mmaudio.tasks.distilled:DistilledFlowTask",
    "mmaudio_vae": "foley_jax.mmaudio.tasks.vae:VaeTask",
    "mm_super_resolution": "foley_jax.mm_diffusion.tasks.super_resolution:SuperResolutionTask",
}


def resolve(config: ml_collections.ConfigDict) -> Task:
    """Builds the task that `config.task` names ("cavp", ... or "package.module:Class").

    `config.freeze` takes parts away from the task's `trainable`; see `training/freeze.py`. With
    `config.lora` adapters are trained in its place; see `training/adapters.py`.

    Raises:
      ValueError: the name is neither known nor of the form module:class.
    """
    name = config.task
    target = TASKS.get(name, name)
    if ":" not in target:
        raise ValueError(f"config.task is {name!r}; known tasks: {', '.join(sorted(TASKS))}")
    module_name, class_name = target.split(":")
    task = getattr(importlib.import_module(module_name), class_name)(config)
    task.trainable = freeze.trainable(task.trainable, config.get("freeze", ()))
    if adapters.on(config):
        adapters.attach(task)
    return task
