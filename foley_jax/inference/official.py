"""Official weights as runs of ours: with the config that the paper's stage would have."""

import importlib
import os
from typing import Any

from flax import nnx
import ml_collections

from foley_jax.interop import registry
from foley_jax.training import task as task_lib


def run_config(kind: str, **model_overrides: Any) -> ml_collections.ConfigDict:
    """Config saved beside converted weights: the paper's stage with this model, or the model."""
    description = registry.lookup(kind)
    model = registry.model_config(description, model_overrides)
    if not description.stage:
        return ml_collections.ConfigDict({"model": model})
    stage, _, variant = description.stage.partition(":")
    config = importlib.import_module(f"configs.{stage}").get_config(variant)
    config.model = model
    return config


def save(kind: str, module: nnx.Module, folder: str | os.PathLike, **model_overrides: Any) -> None:
    """Writes a converted module as a folder that training, sampling and grafts can read."""
    from foley_jax.training.checkpointing import run_directory  # orbax takes seconds to import

    config = run_config(kind, **model_overrides)
    trainable = task_lib.resolve(config).trainable if "task" in config else nnx.Param
    _, params, rest = nnx.split(module, trainable, ...)
    run_directory.save_model(
        folder,
        config=config,
        params=nnx.to_pure_dict(params),
        rest=nnx.to_pure_dict(rest),
        kind=kind,
    )
