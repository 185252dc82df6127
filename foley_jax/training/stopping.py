"""When a run has to stop before its end."""

import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils


class PreemptionGuard:
    """Turns SIGTERM into a request to save and stop; all processes agree on the step."""

    def __enter__(self) -> "PreemptionGuard":
        self._asked = False
        # With several processes jax listens for SIGTERM itself and finds a common step.
        self._own = jax.process_count() == 1 and (
            threading.current_thread() is threading.main_thread()
        )
        if self._own:
            self._previous = signal.signal(signal.SIGTERM, self._ask)
        return self

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def now(self, step: int) -> bool:
        """Whether to stop after `step` updates."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked

    def __exit__(self, *_: object) -> None:
        if self._own:
            signal.signal(signal.SIGTERM, self._previous)
