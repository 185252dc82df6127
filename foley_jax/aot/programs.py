"""The programs of a config, with arguments that have shapes and shardings but no numbers."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import math
from typing import Any

import jax
import ml_collections
import numpy as np

from foley_jax.data import records
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.training import loop
from foley_jax.training import task as task_lib

CLIP_SECONDS = 10.0  # of the records that examples are cut from


@dataclasses.dataclass(frozen=True)
class Program:
    """One program to compile.

    Attributes:
      name: what it does.
      jitted: what `jax.jit` gave.
      args: its arguments, pytrees of ShapeDtypeStructs.
      mesh: devices.
      parts: name -> the arguments that are meant by it, for the table of memory.
      examples: made or trained on in one call, on all devices.
    """

    name: str
    jitted: Callable
    args: tuple[Any, ...]
    mesh: jax.sharding.Mesh
    parts: Mapping[str, Any]
    examples: int

    def part_bytes(self) -> dict[str, int]:
        """Bytes of every part on one device."""
        return {name: bytes_per_device(tree) for name, tree in self.parts.items()}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Where to trace and compile it."""
        with jax.set_mesh(self.mesh):
            yield


def bytes_per_device(tree: Any) -> int:
    """Returns the bytes on one device of arrays or ShapeDtypeStructs with shardings."""

    def leaf(x: Any) -> int:
        shape = x.sharding.shard_shape(x.shape) if x.sharding is not None else x.shape
        return math.prod(shape) * x.dtype.itemsize

    return sum(leaf(x) for x in jax.tree.leaves(tree))


class BlankClips:
    """Two clips of black and silence as shards would hold them, to learn the shape of examples.

    Args:
      features: shapes of another system's arrays by their names.
    """

    def __init__(
        self, config: ml_collections.ConfigDict, features: Mapping[str, tuple[int, ...]] = {}
    ):
        video, audio = config.video, config.audio
        count = math.ceil(CLIP_SECONDS * video.fps)
        image = np.zeros((1, video.height, video.width, 3), np.uint8)
        width = config.model.get("conditioner", {}).get("in_dim", 1)
        self._clip = records.Clip(
            id="blank",
            split="train",
            labels=[],
            source="blank",
            start_s=0.0,
            end_s=CLIP_SECONDS,
            fps=video.fps,
            frames=records.encode_frames(image) * count,
            audio=np.zeros(int(CLIP_SECONDS * audio.sample_rate_hz), np.int16),
            sample_rate_hz=audio.sample_rate_hz,
            cavp_TD=np.zeros((count, width), np.float16),
            features={name: np.zeros(shape, np.float16) for name, shape in features.items()},
        )

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> records.Clip:
        return self._clip


def global_batch(
    task: task_lib.Task, size: int, mesh: jax.sharding.Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch as the loop would feed it to a task's training step."""
    transform = task.transform(train=True)
    source = BlankClips(task.config, getattr(transform, "shapes", {}))
    example = transform(source, 0, np.random.default_rng(0))
    arrays = {name: np.asarray(x) for name, x in example.items()}
    return {
        name: jax.ShapeDtypeStruct((size, *x.shape), x.dtype, sharding=mesh_lib.batch(mesh))
        for name, x in arrays.items()
    }


def training(config: ml_collections.ConfigDict, devices: list[jax.Device]) -> Program:
    """The step that `foley_jax.main` runs.

    Raises:
      ValueError: the mesh or the batch does not fit the devices.
    """
    mesh = mesh_lib.make_mesh(**config.mesh, devices=devices)
    task = task_lib.resolve(config)
    with jax.set_mesh(mesh):
        maker = loop.maker_of(task, config, mesh)
        step = loop.step_of(task, config, maker, mesh)
        if config.batch_size % mesh.size:
            raise ValueError(
                f"batch_size {config.batch_size} is no multiple of the {mesh.size} chips"
            )
        batch = global_batch(task, config.batch_size, mesh)
    state = maker.abstract
    parts = {
        "parameters": state.params,
        "optimizer": state.opt_state,
        "average": state.ema,
        "frozen": state.rest,
        "batch": batch,
    }
    return Program("train", step, (state, batch), mesh, parts, config.batch_size)
