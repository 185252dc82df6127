"""Batches come from loader processes through /dev/shm, which containers often keep at 64 MB.

A process that writes past its end is killed by the kernel, with no word of why.
"""

from collections.abc import Iterator, Mapping
import shutil
import sys
from typing import Any

import numpy as np

FOLDER = "/dev/shm"
# of every process: one batch with the reader, one waiting, one being written
_BATCHES_PER_WORKER = 3
_HELP = (
    "give the container more (docker run --shm-size=2g, or an emptyDir of medium Memory), or set "
    "--config.data.workers=0, which makes the same batches in threads"
)


def workers_that_fit(workers: int, example: Mapping[str, np.ndarray], batch_size: int) -> int:
    """Returns how many loader processes /dev/shm has room for, up to `workers`.

    A warning says so where that is fewer. What other programs put there later is not foreseen; see
    `named`.

    Args:
      example: one of a batch.
      batch_size: examples of the batches that one process hands over.
    """
    free = _free_bytes()
    if free is None:
        return workers
    needed = _BATCHES_PER_WORKER * batch_size * sum(np.asarray(x).nbytes for x in example.values())
    fit = min(workers, free // max(1, needed))
    if fit < workers:
        print(
            f"warning: {FOLDER} has {free / 1e6:.0f} MB free, and {workers} loader processes may "
            f"hold {workers * needed / 1e6:.0f} MB there: going on with {fit}; {_HELP}",
            file=sys.stderr,
        )
    return fit


def named(batches: Iterator[Any]) -> Iterator[Any]:
    """Yields the batches of loader processes; where one was killed, says by what it may have been.

    Raises:
      RuntimeError: a process is gone.
    """
    try:
        yield from batches
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):
            raise
        free = _free_bytes()
        left = "it is not there" if free is None else f"{free / 1e6:.0f} MB are free now"
        raise RuntimeError(
            f"a loader process was killed ({str(error).partition('. ')[0]}); code -7 means that "
            f"{FOLDER} was full ({left}), -9 that memory was: {_HELP}"
        ) from error


def _free_bytes() -> int | None:
    """Room in /dev/shm; None where a system has none."""
    try:
        return shutil.disk_usage(FOLDER).free
    except OSError:
        return None
