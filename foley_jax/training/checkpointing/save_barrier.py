"""Lets the processes of a run wait for each other while they save, but not for one that failed.

Orbax's own barrier knows only arrival and a time limit of 20 minutes: where one process cannot
write its part (it may be the only one that writes much), the others would wait for it so long.
"""

import itertools
import threading
import time

import jax
from jax._src import distributed  # orbax takes the client of the coordinator from here, too

_ENDS = "set_value_start"  # orbax comes by with this name when a save begins, and when it ends
_COMMITTED = "async_commit_complete"
_NUMBERS = itertools.count()
_SLOWEST_S = 0.5  # from look to look


class SaveBarrier:
    """A `barrier_sync_fn` of orbax: every process calls it with the same names in the same order.

    A save passes: begin, (every part is written), (the whole is in place), end. A process that
    failed goes to its end without the middle ones; those that wait there hear of it and fail too.

    Args:
      folder: distinguishes this from other savers of the same run; all processes make theirs in
        the same order.
    """

    def __init__(self, folder: str):
        self._folder = f"foley_jax/{next(_NUMBERS)}/{folder}"  # keys of an earlier one remain
        self._save, self._is_open, self._committed = 0, False, False
        self._keys: list[str] = []  # of this process, of this save
        self._old: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, *, key: str, timeout_ms: int) -> None:
        """Waits until all processes have come.

        Raises:
          RuntimeError: another one failed to write its part.
          TimeoutError: not all came in time.
        """
        if jax.process_count() == 1:
            return
        client = distributed.global_state.client
        ends = _ENDS in key
        if ends:
            self._turn(client)
        place = f"{self._folder}/{self._save}/{key}/{'open' if self._is_open else 'closed'}/"
        client.key_value_set(place + str(jax.process_index()), "here")
        self._keys.append(place + str(jax.process_index()))
        deadline, pause = time.monotonic() + timeout_ms / 1000, 0.005
        while len(client.key_value_dir_get(place)) < jax.process_count():
            if _COMMITTED in key or "async_write_complete" in key:
                self._listen(client)
            if time.monotonic() > deadline:
                raise TimeoutError(f"not all processes came to {key} in {timeout_ms / 1000:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, _SLOWEST_S)
        if _COMMITTED in key:
            self._committed = True
        if ends and self._is_open:  # all are here: nobody looks at the save before any more
            for old in self._old:
                client.key_value_delete(old)

    def _turn(self, client) -> None:
        """At the begin and the end of a save."""
        with self._lock:
            if not self._is_open:
                self._save, self._is_open, self._committed = self._save + 1, True, False
                self._old, self._keys = self._keys, []
                return
            self._is_open = False
            if not self._committed:
                failed = f"{self._folder}/failed/{self._save}"
                client.key_value_set(failed, str(jax.process_index()), allow_overwrite=True)

    def _listen(self, client) -> None:
        failed = client.key_value_dir_get(f"{self._folder}/failed/")
        for name, index in failed:
            if name.rpartition("/")[2] == str(self._save):
                raise RuntimeError(f"process {index} could not write its part")
