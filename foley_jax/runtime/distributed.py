"""Processes of one run: how they join and end, agree, and make global arrays of their parts."""

from collections.abc import Mapping
import os
import sys
import threading

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
import numpy as np

from foley_jax.runtime import mesh as mesh_lib

END_PATIENCE_S = 10.0


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


def all_processes_true(ours: bool) -> bool:
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
    sharding = mesh_lib.batch(mesh)
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


def make_global(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Makes a global array of a host array that every process holds whole."""
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
