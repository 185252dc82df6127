"""The stage of MMAudio: the flow network on stored features of audio, video and text.

Batch: that of `flow_loss`. Records: `Clip.features` as `data_prep.mmaudio_features` writes them,
"mean_NC" and "std_NC" of the audio, and of what a clip has "clip_VD" and "sync_SD", "text_TD".

Config fields:
  config.audio: of one of `rates.RATES`.
  config.data.window_s: seconds of every clip (8).
  config.model: arguments of `flow_network.FlowNetwork`; `flow_network.CONFIGS` are the released.
  config.loss.condition_dropout: share of examples trained without video, and without text (0.1).
  config.init_from: latent_mean, latent_std and empty_string_feat come from `constants` beside the
    shards; without the first two the loss is NaN.
  config.parts: where sampling finds autoencoder, vocoder and encoders.
Source: MMAudio mmaudio/runner.py.
"""

from collections.abc import Mapping, Sequence
import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from foley_jax.data import records
from foley_jax.layers import configured
from foley_jax.media import specs
from foley_jax.mmaudio import rates as rates_lib
from foley_jax.mmaudio.models import flow_network
from foley_jax.mmaudio.tasks import flow_loss
from foley_jax.training import task as task_lib


@dataclasses.dataclass(frozen=True)
class StoredFeatures:
    """Record -> example, float32; what a clip does not have is zeros, and said to be missing.

    Attributes:
      shapes: of "mean_NC", "std_NC", "clip_VD", "sync_SD" and "text_TD".
    """

    shapes: Mapping[str, tuple[int, int]]

    def __call__(
        self, source: Sequence[records.Clip], index: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Raises ValueError if the record has no features, or those of another length or width."""
        del rng
        clip = source[index]
        example = {}
        for name, shape in self.shapes.items():
            array = (clip.features or {}).get(name)
            if array is None and name in ("mean_NC", "std_NC"):
                raise ValueError(
                    f"clip {clip.id} has no {name}: it holds no features of MMAudio; make them "
                    "with `python -m data_prep.mmaudio_features`"
                )
            if array is not None and array.shape != shape:
                raise ValueError(
                    f"clip {clip.id}: {name} is {array.shape}, expected {shape} by config.model, "
                    "config.audio and config.data.window_s; train the variant of the config that "
                    "the features were made for"
                )
            letters = name.partition("_")[0] + "_B" + name.partition("_")[2]
            example[letters] = np.zeros(shape, np.float32) if array is None else np.float32(array)
        has = clip.features.keys()
        example["has_video_B"] = np.bool_({"clip_VD", "sync_SD"} <= has)
        example["has_text_B"] = np.bool_("text_TD" in has)
        return example


class FlowTask(task_lib.Task):
    """Trains every parameter of the flow network; statistics and the features of "" are fixed."""

    trainable = nnx.Param

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.rates = rates_lib.of(specs.AudioSpec(**config.audio))

    def build(self, rngs: nnx.Rngs) -> flow_network.FlowNetwork:
        """A fresh network with float32 parameters."""
        config = self.config
        return configured.build(
            flow_network.FlowNetwork, config.model, dtype=config.dtype, rngs=rngs
        )

    def transform(self, *, train: bool) -> StoredFeatures:
        """The features as they are stored: what is random is drawn on the device."""
        del train
        lengths = self.rates.lengths(self.config.data.window_s)
        model = {**configured.defaults(flow_network.FlowNetwork), **self.config.model}
        latents = (lengths.latents, model["latent_dim"])
        return StoredFeatures(
            {
                "mean_NC": latents,
                "std_NC": latents,
                "clip_VD": (lengths.clip, model["clip_dim"]),
                "sync_SD": (lengths.sync, model["sync_dim"]),
                "text_TD": (model["text_length"], model["text_dim"]),
            }
        )

    def loss(
        self, model: flow_network.FlowNetwork, batch: task_lib.Batch, key: jax.Array, *, train: bool
    ) -> tuple[jax.Array, task_lib.Metrics]:
        """Mean squared error of the velocity; evaluation drops no condition, see `flow_loss.draw`.

        Metrics tell it for times before and after the middle of the way from noise to audio.
        """
        share = self.config.loss.condition_dropout
        draws = flow_loss.draw(batch["mean_BNC"].shape, key, train=train, dropout=share)
        loss_B, x1_BNC = flow_loss.loss(model, batch, draws)
        early_B = draws.times_B < 0.5

        def mean_of(mask_B: jax.Array) -> jax.Array:
            return (loss_B * mask_B).sum() / jnp.maximum(mask_B.sum(), 1)

        metrics = {
            "loss_early": mean_of(early_B),
            "loss_late": mean_of(~early_B),
            "latent_std": jnp.std(x1_BNC),
        }
        return loss_B.mean(), metrics
