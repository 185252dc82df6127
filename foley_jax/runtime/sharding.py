"""Ground floor of parallelism: the mesh, who is split over it, and how host arrays become global.

Mesh ("data", "fsdp"), both Auto: the batch is split over both axes, large parameters over "fsdp",
everything else is a copy on every device. Models say nothing about devices but `shard_batch`.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import math
import os
import sys
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

AXES = ("data", "fsdp")
BATCH = PartitionSpec(AXES)
FSDP_MIN_BYTES = 4 * 2**20  # smaller tensors cost more to gather than to hold
END_PATIENCE_S = 10.0
_RUNNING = threading.Lock()


def join_processes() -> None:
    """Joins the other processes of this run; nothing may have touched a device before.

    Address, number and index come from the cluster, or from the environment:
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    Raises:
      ValueError: only some of the three are set.
    """
    jax.distributed.initialize(**_process_from_environment())


def _process_from_environment() -> dict[str, str | int]:
    """Arguments of `jax.distributed.initialize`; empty where the cluster is found by itself."""
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is None:
        return {}
    try:
        return {
            "coordinator_address": address,
            "num_processes": int(os.environ["JAX_NUM_PROCESSES"]),
            "process_id": int(os.environ["JAX_PROCESS_ID"]),
        }
    except KeyError as error:
        raise ValueError(f"JAX_COORDINATOR_ADDRESS is set but {error} is not") from error


def end_alone(status: int, patience_s: float = END_PATIENCE_S) -> None:
    """Lets a process that failed end although the others wait for its part of a step.

    Leaving a run in good order means to wait for the others. If these do not come, because only
    this process failed, it is ended at once; they are ended by its absence, in at most a few
    minutes. Returns where there is nobody to wait for, or where all have come.

    Args:
      status: exit code.
      patience_s: how long to wait for the others.
    """
    if not jax.distributed.is_initialized():
        return
    leaving = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    leaving.start()
    leaving.join(patience_s)
    if leaving.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


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
        tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices
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
def running(mesh: Mesh) -> Iterator[None]:
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
    return NamedSharding(mesh, BATCH)


def parameter_spec(
    shape: tuple[int, ...], itemsize: int, fsdp: int, *, min_bytes: int | None = None
) -> PartitionSpec:
    """Where one parameter is cut: its largest dimension that `fsdp` divides, if it is large.

    Args:
      shape: of the whole parameter.
      itemsize: bytes per element.
      fsdp: size of the "fsdp" axis.
      min_bytes: tensors of at most this size stay whole; `FSDP_MIN_BYTES` by default.
    """
    min_bytes = FSDP_MIN_BYTES if min_bytes is None else min_bytes
    if fsdp == 1 or math.prod(shape) * itemsize <= min_bytes:
        return PartitionSpec()
    fitting = [axis for axis, size in enumerate(shape) if size and size % fsdp == 0]
    if not fitting:
        return PartitionSpec()
    cut = max(fitting, key=lambda axis: shape[axis])
    return PartitionSpec(*(["fsdp" if axis == cut else None for axis in range(len(shape))]))


def state_shardings(abstract: Any, mesh: Mesh, *, min_bytes: int | None = None) -> Any:
    """A NamedSharding for every leaf, by `parameter_spec`.

    Args:
      abstract: pytree of arrays or ShapeDtypeStructs (parameters, optimizer moments, EMA).
      mesh: from `make_mesh`.
    """

    def leaf(x: Any) -> NamedSharding:
        spec = parameter_spec(x.shape, x.dtype.itemsize, mesh.shape["fsdp"], min_bytes=min_bytes)
        return NamedSharding(mesh, spec)

    return jax.tree.map(leaf, abstract)


def laid_out(abstract: Any, mesh: Mesh) -> Any:
    """ShapeDtypeStructs like those of `abstract`, each with its place by `state_shardings`."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        abstract,
        state_shardings(abstract, mesh),
    )


def compiler_options(mesh: Mesh) -> dict[str, Any] | None:
    """For `jax.jit` of programs whose parameters are cut over the devices of `mesh`.

    XLA for TPUs would multiply by a cut parameter piece by piece while the pieces travel around.
    Products over few rows read and write the rows anew for every piece: a transformer of 1280
    channels on 8 v5e moved 15.2 GB instead of 3.8, and sent 0.45 instead of 0.26 GB.
    """
    if mesh.shape["fsdp"] == 1 or mesh.devices.flat[0].platform != "tpu":
        return None
    return {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 2**20}


def shard_batch(x: jax.Array) -> jax.Array:
    """Pins the leading axis of an activation to the batch axes of the current mesh.

    Without it the partitioner lets channels follow FSDP parameters and moves whole activations.
    A no-op where there is no mesh, or where its devices do not divide the axis.
    """
    if x.ndim == 0 or x.shape[0] % (devices := num_devices()) or devices == 1:
        return x
    return jax.lax.with_sharding_constraint(x, BATCH)


def num_devices() -> int:
    """Devices that the compiler may split what is traced now over; 1 without a mesh of ours."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or any(axis not in mesh.axis_names for axis in AXES):
        return 1
    if any(kind == AxisType.Manual for kind in mesh.axis_types):
        return 1  # inside `each_its_own`
    return math.prod(mesh.shape[axis] for axis in AXES)


def on_tpu() -> bool:
    """Whether what is traced now is for TPUs: those of the mesh, else of this process."""
    return _traced_for("tpu")


def on_cpu() -> bool:
    """Whether what is traced now is for CPUs: those of the mesh, else of this process."""
    return _traced_for("cpu")


def on_one_cpu() -> bool:
    """Whether what is traced now is for a CPU, and not to be split over several devices."""
    return num_devices() == 1 and on_cpu()


def _traced_for(platform: str) -> bool:
    """Whether a "cpu" or "tpu" is what the mesh has, or without one this process."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return jax.default_backend() == platform
    device = mesh.abstract_device
    return device is not None and platform in device.device_kind.lower()


def each_its_own(
    fn: Callable[..., Any], *, whole: int = 0, sums: bool = False
) -> Callable[..., Any]:
    """`fn` of batches, on every device for its own examples, without a word between them.

    For functions that the compiler would split along another axis, as those under `jax.vmap`, or
    not at all: Fourier transforms, of which it makes those of all devices on each. What `fn`
    closes over, every device has whole. Without a mesh, or where its devices do not divide the
    batch, it is `fn` itself.

    Args:
      fn: batches -> batches.
      whole: so many of the last arguments are no batches: every device has them whole.
      sums: `fn` returns (batches, sums over its examples); those of all devices are added.
    """

    def run(*args: Any) -> Any:
        count, rows = num_devices(), len(jax.tree.leaves(args)[0])
        if count == 1 or rows % count:
            return fn(*args)

        def own(*args: Any) -> Any:
            if not sums:
                return fn(*args)
            batches, totals = fn(*args)
            return batches, jax.lax.psum(totals, AXES)

        everywhere = PartitionSpec()
        in_specs = (BATCH,) * (len(args) - whole) + (everywhere,) * whole
        out_specs = (BATCH, everywhere) if sums else BATCH
        return jax.shard_map(own, in_specs=in_specs, out_specs=out_specs, check_vma=False)(*args)

    return run


def true_everywhere(ours: bool) -> bool:
    """Whether it is true of every process; all of them must ask."""
    if jax.process_count() == 1:
        return ours
    return bool(multihost_utils.process_allgather(np.array(ours)).all())


def global_batch(local: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Joins the rows that every process holds to global arrays split over all devices.

    Args:
      local: name -> [global_batch / process_count, ...], this process's rows.
    Raises:
      ValueError: the devices do not divide the global batch.
    """
    sharding = batch(mesh)
    rows = len(next(iter(local.values()))) * jax.process_count()
    if rows % mesh.size:
        raise ValueError(
            f"a batch of {rows} cannot be split over {mesh.size} devices; "
            f"set batch_size to a multiple of {mesh.size}"
        )
    with jax.transfer_guard_host_to_device(
        "allow"
    ):  # the one transfer that a step is meant to have
        return {
            name: jax.make_array_from_process_local_data(sharding, np.asarray(x))
            for name, x in local.items()
        }


def place(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Makes a global array of a host array that every process holds whole."""
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
