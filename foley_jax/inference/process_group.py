"""The processes of one run of sampling, which meet through files and share the videos."""

from collections.abc import Sequence
import contextlib
import json
from pathlib import Path
import time
from typing import Any

from jax.experimental import multihost_utils

from foley_jax.inference import score_file

POLL_S = 0.5  # how often a process looks whether the others have ended


class ProcessGroup:
    """The processes of one run; alone, it has nothing to wait for.

    They meet through files of `out`, because they end at times that are far apart: collectives
    give up after minutes. A process that is stopped by an exception stops the others; one that
    is killed does so too, by the heartbeat of `jax.distributed`.
    """

    def __init__(self, out: Path, index: int, count: int):
        self.out, self.index, self.count = out, index, count

    def __enter__(self) -> "ProcessGroup":
        self.out.mkdir(parents=True, exist_ok=True)
        self._account(self.index).unlink(missing_ok=True)  # of a run that was killed
        self._meet("generate begins")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if kind is None:
            self._meet("generate ends")
            self._account(self.index).unlink()
        elif self.count > 1:
            with contextlib.suppress(OSError):  # a full disk; the error itself goes on
                score_file.write_json(
                    self._account(self.index), {"error": f"{kind.__name__}: {error}"}
                )

    def share(self, paths: Sequence[Path]) -> list[Path]:
        """Every count-th."""
        return list(paths[self.index :: self.count])

    def gather(self, account: dict[str, Any]) -> list[dict[str, Any]]:
        """The accounts of all processes, in order, when they all have ended.

        Raises:
          RuntimeError: another one was stopped by an exception.
        """
        score_file.write_json(self._account(self.index), account)
        files = [self._account(i) for i in range(self.count)]
        while not all(file.exists() for file in files):
            time.sleep(POLL_S)
        accounts = [json.loads(file.read_text()) for file in files]
        for index, other in enumerate(accounts):
            if "error" in other:
                raise RuntimeError(f"process {index} of {self.count} stopped: {other['error']}")
        return accounts

    def _account(self, index: int) -> Path:
        return self.out / f"process{index}.json"

    def _meet(self, name: str) -> None:
        if self.count > 1:
            multihost_utils.sync_global_devices(name)
