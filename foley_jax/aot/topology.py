"""Devices that are not there, as the compiler knows them."""

import os
import re

import jax
from jax.experimental import topologies

from foley_jax.aot import gpu
from foley_jax.runtime import init_keys

# libtpu asks a machine's metadata server what it runs on, unless it is told; and it wants to be
# the only one, which matters where there are TPUs.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_ONE_HOST = {"v5p": {4: "2x2x1"}}
_FLAT = {1: "1x1", 4: "2x2", 8: "2x4"}


def devices(name: str) -> list[jax.Device]:
    """The chips of a slice.

    Args:
      name: "v5e:2x4", "v5e:16x16", "v5p:2x2x4", "v6e:4x4": generation and shape as in Cloud TPU's
        documentation; "h100:8", "h100:2x8": GPUs of one host, or of two, see `gpu.cards`; "cpu:8":
        as many made-up devices of this machine's CPU, for which the programs have the same
        collectives.
    Raises:
      ValueError: no such slice, or the compiler for it is not installed.
    """
    init_keys.no_weights()  # of this machine: nothing can run once the mesh is of absent devices
    if gpu.is_gpu(name):
        return gpu.devices(name)
    if match := re.fullmatch(r"cpu:(\d+)", name):
        return _cpus(int(match[1]))
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    try:
        return list(topologies.get_topology_desc(name, "tpu").devices)
    except (ImportError, RuntimeError, ValueError) as error:  # jax's own errors are RuntimeErrors
        text = str(error).splitlines()[0]
        if "libtpu" in text.lower() or "not installed" in text:
            text += "; compiling for TPUs takes libtpu: `pip install 'foley_jax[tpu]'`"
        raise ValueError(
            f"--topology={name}: {text} (known are names like v5e:2x4, v5p:2x2x4, v6e:4x4, cpu:8, "
            f"and of GPUs {', '.join(f'{card}:8' for card in gpu.cards())})"
        ) from error


def _cpus(count: int) -> list[jax.Device]:
    found = jax.devices("cpu")
    if len(found) < count:
        raise ValueError(
            f"{count} CPU devices are wanted, this process has {len(found)}; "
            f"start it with JAX_NUM_CPU_DEVICES={count}"
        )
    return found[:count]


def one_host(name: str, slice_devices: list[jax.Device]) -> str:
    """The slice that one host of a slice has: every process samples on its own chips.

    Args:
      name: of the slice.
      slice_devices: its devices.
    Raises:
      ValueError: we do not know the shape of such a host.
    """
    generation = name.split(":")[0]
    if generation == "cpu":
        return name
    if gpu.is_gpu(name):
        card, _, count = gpu.size(name)
        return f"{card}:{count}"
    count = sum(d.process_index == slice_devices[0].process_index for d in slice_devices)
    shape = _ONE_HOST.get(generation, _FLAT).get(count)
    if shape is None:
        raise ValueError(f"{name} has {count} chips a host, a shape that is not known here")
    return f"{generation}:{shape}"
