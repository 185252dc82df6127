"""A trace of some updates of a run, for xprof or Perfetto."""

from typing import Any

from etils import epath
import jax

FOLDER = "profile"  # inside the run directory


class Profiler:
    """Records the updates whose numbers lie in an interval; every process its own devices.

    A run that resumes inside the interval records what is left of it.

    Args:
      run_dir: receives profile/plugins/profile/TIME/HOST.xplane.pb.
      steps: first and last update to record, counted from 1 as in the log; None for none.
    """

    def __init__(self, run_dir: epath.PathLike, steps: tuple[int, int] | None):
        self.folder = epath.Path(run_dir) / FOLDER
        self._steps, self._running = steps, False

    def begins(self, number: int) -> bool:
        """Whether `start` should be called before update `number`."""
        return (
            self._steps is not None
            and not self._running
            and self._steps[0] <= number <= self._steps[1]
        )

    def ends(self, number: int) -> bool:
        """Whether `stop` should be called after update `number`."""
        return self._running and number >= self._steps[1]

    def start(self) -> None:
        """Starts to record."""
        jax.profiler.start_trace(str(self.folder))
        self._running = True

    def stop(self, result: Any = None) -> bool:
        """Waits for `result` of the last update, and writes what was recorded.

        Returns:
          Whether anything was.
        """
        if not self._running:
            return False
        self._running = False
        try:
            jax.block_until_ready(result)
        finally:
            jax.profiler.stop_trace()
        return True
