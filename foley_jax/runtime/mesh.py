"""The mesh of devices: all of them for training, those of one process for sampling."""

from collections.abc import Iterator
import contextlib
import math
import threading
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from foley_jax.runtime import partition

_RUNNING = threading.Lock()


def make_mesh(data: int = -1, fsdp: int = 1, *, devices: list[jax.Device] | None = None) -> Mesh:
    """Arranges the devices of all processes as [data, fsdp].

    Args:
      data: number of batch-only groups; -1 takes what is left after `fsdp`.
      fsdp: number of devices that large parameters are split over.
      devices: all devices by default.
    Raises:
      ValueError: the two sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {"data": data, "fsdp": fsdp}
    known = math.prod(size for size in sizes.values() if size > 0)
    if list(sizes.values()).count(-1) == 1 and len(devices) % known == 0:
        sizes = {k: len(devices) // known if v == -1 else v for k, v in sizes.items()}
    if sizes["data"] * sizes["fsdp"] != len(devices) or min(sizes.values()) < 1:
        raise ValueError(
            f"config.mesh is data={data}, fsdp={fsdp}, which does not fit {len(devices)} devices; "
            "use data=-1 and an fsdp that divides them"
        )
    return jax.make_mesh(
        tuple(sizes.values()), partition.AXES, axis_types=(AxisType.Auto,) * 2, devices=devices
    )


def local_mesh(num_devices: int | None = None) -> Mesh | None:
    """The devices of this process as a mesh of its own; None stands for the first one alone.

    Args:
      num_devices: how many; by default all, but one of a CPU's, which are one set of cores.
    Raises:
      ValueError: there are not that many.
    """
    devices = jax.local_devices()
    if num_devices is None:
        num_devices = 1 if devices[0].platform == "cpu" else len(devices)
    if not 1 <= num_devices <= len(devices):
        raise ValueError(f"{num_devices} devices are asked for, this process has {len(devices)}")
    return None if num_devices == 1 else make_mesh(devices=devices[:num_devices])


@contextlib.contextmanager
def use_mesh(mesh: Mesh) -> Iterator[None]:
    """Where a program of several devices runs, to its end, called from whatever thread.

    One at a time: two of them that start in another order on each device would wait for each
    other's collectives forever.
    """
    with _RUNNING, jax.set_mesh(mesh):
        yield


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch(mesh: Mesh) -> NamedSharding:
    """Leading axis split over all devices."""
    return NamedSharding(mesh, partition.BATCH)


def compiler_options(mesh: Mesh) -> dict[str, Any] | None:
    """For `jax.jit` of programs whose parameters are cut over the devices of `mesh`.

    XLA for TPUs would multiply by a cut parameter piece by piece while the pieces travel around.
    Products over few rows read and write the rows anew for every piece: a transformer of 1280
    channels on 8 v5e moved 15.2 GB instead of 3.8, and sent 0.45 instead of 0.26 GB.
    """
    if mesh.shape["fsdp"] == 1 or mesh.devices.flat[0].platform != "tpu":
        return None
    return {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 2**20}
