"""One network for sampling: from a run folder, a converted or official file, or the hub."""

from collections.abc import Mapping
import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx
import jax
import ml_collections

from foley_jax.inference import boxed, official
from foley_jax.interop import hub, registry, torch_reader
from foley_jax.runtime import network as network_lib
from foley_jax.training import task as task_lib
from foley_jax.training.checkpointing import exported, hashes, run_directory

CAVP = "cavp"  # folder in that of an exported model
# stages of few-step models -> the stage that they are sampled as
STUDENTS = {"distilled": "ldm", "mmaudio_distilled": "mmaudio"}


class Part(NamedTuple):
    """One network with the config and the task that built it."""

    config: ml_collections.ConfigDict
    task: Any
    network: network_lib.Network


def part(source: str | os.PathLike, stage: str, dtype: str | None) -> Part:
    """A network from a run folder, an official file, or a hub file, or the package."""
    source = on_disk(source)
    if hub.is_hub(source):
        source = hub.fetch(str(source))
    if is_file(source):
        kind = registry.recognise(source)
        config = official.run_config(kind)
        config.kind = kind
        module = registry.load_torch(kind, source)
        state = None
    else:
        config, *state = run_directory.load_model_state(source)
    if STUDENTS.get(config.get("task")) == stage:
        config.distillation.with_teacher = False
        state = [run_directory.without_teacher(tree) for tree in state]
    elif config.get("task") != stage:
        holds = config.get("kind") or config.get("task")
        raise ValueError(f"{source} holds {holds!r}; wanted here: {stage!r}")
    if dtype or jax.default_backend() == "cpu":
        config.dtype = dtype or "float32"
    task = task_lib.resolve(config)
    if state is None:
        _, *state = nnx.split(module, task.trainable, ...)
        state = [nnx.to_pure_dict(part) for part in state]
    return Part(config, task, restore(task, *state))


def on_disk(source: str | os.PathLike) -> str | os.PathLike:
    """Returns the folder of an exported model: of the package, or of the hub and now downloaded.

    Any other source comes back as it is.
    """
    source = boxed.found(source)
    if not hub.is_hub(source):
        return source
    own = (run_directory.CONFIG, exported.WEIGHTS, hashes.FILE)
    folder = hub.folder(str(source), [*own, *(f"{CAVP}/{file}" for file in own)])
    return folder if folder and exported.is_one(folder) else source


def restore(task: task_lib.Task, params: Mapping, rest: Mapping) -> network_lib.Network:
    """The task's model with a checkpoint's arrays."""
    network = network_lib.Network.rebuild(task.build, task.trainable, params, rest)
    return dataclasses.replace(network, origin=task.config.to_json(sort_keys=True))


def is_file(source: str | os.PathLike) -> bool:
    return Path(source).suffix in torch_reader.ENDINGS and Path(source).is_file()
