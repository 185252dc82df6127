"""How arrays are cut over the devices of a mesh, and what is known of these while tracing.

Mesh ("data", "fsdp"), both Auto: the batch is split over both axes, large parameters over "fsdp",
everything else is a copy on every device. Models say nothing about devices but `shard_batch`.
"""

from collections.abc import Callable
import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp")
BATCH = PartitionSpec(AXES)
FSDP_MIN_BYTES = 4 * 2**20  # smaller tensors cost more to gather than to hold


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


def with_shardings(abstract: Any, mesh: Mesh) -> Any:
    """ShapeDtypeStructs like those of `abstract`, each with its place by `state_shardings`."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        abstract,
        state_shardings(abstract, mesh),
    )


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
        return 1  # inside `shard_map_batch`
    return math.prod(mesh.shape[axis] for axis in AXES)


def on_tpu() -> bool:
    """Whether what is traced now is for TPUs: those of the mesh, else of this process."""
    return _traced_for("tpu")


def on_gpu() -> bool:
    """Whether what is traced now is for NVIDIA GPUs: those of the mesh, else of this process."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return jax.default_backend() == "gpu"
    return _traced_for("nvidia")


def on_cpu() -> bool:
    """Whether what is traced now is for CPUs: those of the mesh, else of this process."""
    return _traced_for("cpu")


def on_one_cpu() -> bool:
    """Whether what is traced now is for a CPU, and not to be split over several devices."""
    return num_devices() == 1 and on_cpu()


def _traced_for(platform: str) -> bool:
    """Whether a "cpu", "tpu" or "nvidia" is what the mesh has, or without one this process."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return jax.default_backend() == platform
    device = mesh.abstract_device
    return device is not None and platform in device.device_kind.lower()


def shard_map_batch(
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
