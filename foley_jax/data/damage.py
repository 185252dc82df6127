"""Damaged data met while reading: a few places are passed over and counted, more of them stop.

All threads and worker processes of one reading process share one count, through a file that only
they know: what one has met, the others do not count again.
"""

import fcntl
import os
import tempfile
import threading
from typing import Any
import weakref

from absl import logging


class DamageError(ValueError):
    """More places are damaged than are tolerated; the message names them."""


class Damages:
    """The damaged places of one set of shards that were met so far.

    A place is one record, or one shard that cannot be read at all.

    Args:
      limit: places that are passed over with a warning; one more raises.
    """

    def __init__(self, limit: int):
        if limit < 1:
            raise ValueError(f"the limit of damaged places is {limit}, wanted at least 1")
        self._limit = limit
        handle, self._path = tempfile.mkstemp(prefix="foley_damaged_", suffix=".txt")
        os.close(handle)
        weakref.finalize(self, _remove, self._path, os.getpid())
        self._lock = threading.Lock()
        self._known: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {"_limit": self._limit, "_path": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _known=set())

    def note(self, place: str, reason: str) -> None:
        """Counts a place once, with a warning.

        Args:
          place: what is damaged: "shards/train-00000.arrayrecord", "record 3 of ...".
          reason: what the reader said.
        Raises:
          DamageError: these are more places than the limit.
        """
        with self._lock:
            if place in self._known:
                return
            places, new = self._add(place)
            self._known.add(place)
        if new and len(places) <= self._limit:
            logging.warning(
                "damaged data, place %d of at most %d: %s cannot be read (%s); "
                "other clips take its turn",
                len(places),
                self._limit,
                place,
                reason,
            )
        if len(places) > self._limit:
            raise DamageError(
                f"{len(places)} places of the data are damaged, config.data.max_damaged allows "
                f"{self._limit}: {'; '.join(places)} (the last: {reason}). Look with "
                "`python -m data_prep.inspect SHARDS --verify`; delete the damaged files and "
                "prepare the videos again, or write a set without the damaged clips with "
                "--repair=FOLDER"
            )

    def _add(self, place: str) -> tuple[list[str], bool]:
        """All places in the common file, this one among them, and whether it is new there."""
        with open(self._path, "a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            file.seek(0)
            places = file.read().splitlines()
            new = place not in places
            if new:
                file.write(place + "\n")
                places.append(place)
        return places, new


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner and os.path.exists(path):
        os.unlink(path)
