"""How fast a run goes and what holds it up: one process's view, by its own clock."""

from collections.abc import Callable, Iterator
import contextlib
import queue
import threading
import time
from typing import Any

import jax

SLOW_DATA = 0.3  # share of the time; above it more threads or workers are worth a thought


class Meter:
    """Counts steps and times between two lines of the log.

    Only time in which the run trains counts: not what passes inside `paused` or `compiling`.

    Args:
      batch_size: examples of a step, over all processes.
      clock: seconds from anywhere.
    """

    def __init__(self, batch_size: int, *, clock: Callable[[], float] = time.monotonic):
        self._batch_size, self._clock = batch_size, clock
        self._compile_s: float | None = None
        self._lock = threading.Lock()
        self._newest: Any = None  # result of the step that was dispatched last
        self._idle_since: float | None = clock()  # None: the devices are at work
        self._results: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._watch, daemon=True).start()
        self._begin()

    def _begin(self) -> None:
        self._steps, self._waited, self._left_out = 0, 0.0, 0.0
        self._since = self._clock()

    def _watch(self) -> None:
        """Notes when the devices have nothing left to do; runs in a thread of its own."""
        while (result := self._results.get()) is not None:
            with contextlib.suppress(Exception):  # the loop meets the same error itself
                jax.block_until_ready(result)
            with self._lock:
                if result is self._newest:
                    self._newest, self._idle_since = None, self._clock()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what brings the next batch; time counts while the devices have no work.

        The loop runs ahead of the devices: a batch that takes as long as a step holds nothing up.
        """
        begin = self._clock()
        yield
        end = self._clock()
        with self._lock:
            idle_since = end if self._idle_since is None else self._idle_since
        self._waited += max(0.0, end - max(begin, idle_since))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is not training: evaluation, saving, images."""
        begin = self._clock()
        try:
            yield
        finally:
            self._left_out += self._clock() - begin

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Around the call of the first step, which compiles it."""
        begin = self._clock()
        with self.paused():
            yield
        self._compile_s = self._clock() - begin

    def stepped(self, result: Any) -> None:
        """Counts a step that has been handed to the devices; `result` is what it will give."""
        self._steps += 1
        with self._lock:
            self._newest, self._idle_since = result, None
        self._results.put(result)

    def read(self) -> dict[str, float]:
        """Returns what happened since the last call, whose steps must be finished; begins anew.

        Returns:
          "steps_per_s"; "examples_per_s", over all processes; "data_wait", the share of the time
          in which the devices of this process waited for data; and once "compile_s", what the
          first step took to be compiled.
        """
        elapsed = max(self._clock() - self._since - self._left_out, 1e-9)
        speed = self._steps / elapsed
        values = {
            "steps_per_s": speed,
            "examples_per_s": speed * self._batch_size,
            "data_wait": min(1.0, self._waited / elapsed),
        }
        if self._compile_s is not None:
            values["compile_s"], self._compile_s = self._compile_s, None
        self._begin()
        return values

    def close(self) -> None:
        """Lets the thread go."""
        self._results.put(None)
