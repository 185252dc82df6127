"""Failures where results are written, and what is then done with the others."""

from collections.abc import Iterator, Sequence
import contextlib
import os
from pathlib import Path
from typing import Any, Protocol

from foley_jax.runtime import reasons

PROBE_BYTES = 1 << 20


class OutputError(OSError):
    """Nothing more can be written: the work ends, what is written stays."""


class PartlySavedError(Exception):
    """Some of a video's clips are saved, others could not be.

    Attributes:
      saved: the clips that are.
    """

    def __init__(self, saved: Sequence[Any], reason: str):
        super().__init__(reason)
        self.saved = saved


class Closable(Protocol):
    """Something that is closed."""

    def close(self) -> None:
        """Closes it."""


@contextlib.contextmanager
def closing(output: Closable) -> Iterator[None]:
    """Closes an output at the end; that this fails does not hide why the work was broken off."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            output.close()
        raise
    output.close()


def check_writable(folder: Path) -> None:
    """Makes a folder if it is missing, writes a file into it and removes that.

    Raises:
      OutputError: one of them fails; the text says why and what to do.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(bytes(PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write into {folder} ({reasons.of(error)}); then give the same command again: "
            "it keeps what is there"
        ) from error
