"""How much of its devices a run uses: arithmetic (MFU) and memory."""

import logging
import threading

from flax import nnx
import jax

from foley_jax.runtime import chips, flops
from foley_jax.training import state as state_lib
from foley_jax.training import task as task_lib

_log = logging.getLogger(__name__)


class Utilisation:
    """Figures of the devices, where these tell what they can do and what they use.

    The model FLOPs of an update are counted once, beside the compilation of the first, and only
    where the devices' peak rate is known.
    """

    def __init__(self, task: task_lib.Task, maker: state_lib.StateFactory, mesh: jax.sharding.Mesh):
        self._task, self._maker = task, maker
        self._step_flops: float | None = None
        self._peak = peak_flops(mesh, task.config.get("dtype", "float32"))
        self._thread: threading.Thread | None = None

    def count(self, batch: task_lib.Batch) -> None:
        """Starts to count the FLOPs of an update with such a batch, in a thread of its own."""
        if self._peak is None:
            return
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
        self._thread = threading.Thread(target=self._count, args=(shapes,), daemon=True)
        self._thread.start()

    def _count(self, batch: task_lib.Batch) -> None:
        try:
            self._step_flops = step_flops(self._task, self._maker, batch)
        except Exception as error:  # a figure less must not end a training
            _log.warning("no MFU: FLOPs cannot be counted (%s: %s)", type(error).__name__, error)

    def wait(self, timeout_s: float) -> None:
        """Waits until the FLOPs are counted, at most so long."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def read(self, steps_per_s: float) -> dict[str, float]:
        """Returns what is known now.

        Returns:
          "mfu": model FLOPs of all steps in a second / peak rate of all devices, in [0, 1];
          "memory_gib": the most that one device of this process has held.
        """
        values = {}
        if self._step_flops is not None:
            values["mfu"] = self._step_flops * steps_per_s / self._peak
        used = memory_gib()
        if used is not None:
            values["memory_gib"] = used
        return values


def peak_flops(mesh: jax.sharding.Mesh, dtype: str) -> float | None:
    """FLOP/s that all devices of a mesh can do at best; None where nobody has written it down."""
    chip = chips.find(mesh.devices.flat[0].device_kind)
    one = None if chip is None else chip.peak_flops.get(dtype)
    return None if one is None else one * mesh.size


def step_flops(task: task_lib.Task, maker: state_lib.StateFactory, batch: task_lib.Batch) -> float:
    """FLOPs of loss and gradients on a batch, each operation once: without rematerialisation.

    Args:
      batch: global arrays or ShapeDtypeStructs.
    """

    def loss(params, rest, batch):
        model = nnx.merge(maker.graphdef, params, rest)
        for _, module in nnx.iter_modules(model):
            if getattr(module, "remat", False):
                module.remat = False
        return task.loss(model, batch, jax.random.key(0), train=True)[0]

    plain = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
        (maker.abstract.params, maker.abstract.rest, dict(batch)),
    )
    return flops.count(jax.value_and_grad(loss), *plain)


def memory_gib() -> float | None:
    """The most memory that a device of this process has used, GiB; None where it is not told."""
    found = []
    for device in jax.local_devices():
        told = device.memory_stats() or {}
        found.append(told.get("peak_bytes_in_use", told.get("bytes_in_use")))
    known = [used for used in found if used is not None]
    return max(known) / 2**30 if known else None
