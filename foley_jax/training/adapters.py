"""Fine-tuning by low-rank adapters: `config.lora = {"rank", "alpha", "targets"}`; rank 0 is off.

Only the adapters are trained: they alone are in `params`, in the optimizer's state and in the
averages. The network that they adapt is among the frozen weights (`rest`) of every checkpoint, so
that a run goes on, is evaluated and is sampled from by itself.
"""

from collections.abc import Mapping
from typing import Any

from flax import nnx
import ml_collections

from foley_jax.layers import lora


def on(config: Mapping[str, Any] | ml_collections.ConfigDict) -> bool:
    """Whether a run trains adapters."""
    return bool((config.get("lora") or {}).get("rank", 0))


def attach(task: Any) -> None:
    """Lets a task build its model with the adapters of `task.config.lora`, and train them alone.

    Only what the task trains gets them.

    Args:
      task: a `task.Task`, changed in place.
    """
    fields, build = task.config.lora, task.build
    chosen = nnx.filterlib.to_predicate(task.trainable)

    def adapted(rngs: nnx.Rngs) -> nnx.Module:
        model = build(rngs)
        lora.adapt(
            model,
            fields.targets,
            rank=fields.rank,
            alpha=fields.alpha,
            rngs=rngs,
            chosen=chosen,
        )
        return model

    task.build, task.trainable = adapted, lora.Adapter


def merged(
    config: ml_collections.ConfigDict, groups: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns the leaves of a run without adapters, which are added to the kernels; path -> array.

    Args:
      groups: {"params", "rest"} as flat dicts.
    """
    leaves = {**groups["params"], **groups["rest"]}
    return lora.merged(leaves, config.lora.alpha / config.lora.rank)
