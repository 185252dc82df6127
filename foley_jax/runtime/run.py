"""What a model's work is part of: who watches it, and where it may write."""

from collections.abc import Callable
import contextlib
import dataclasses
from pathlib import Path

STAGES = ("features", "diffusion", "autoencoder", "vocoder", "super-resolution", "scores")


@dataclasses.dataclass(frozen=True)
class Run:
    """What a model's work is part of: nothing here changes what is made.

    Attributes:
      watch: called with the name of a stage (`STAGES`), gives a context for its work; stages of
        `draft` and `finish` overlap where these run in two threads.
      pad_groups: small batches are padded to the size of the largest before them, instead of
        compiling a program of their own.
      scratch: folder for what is too long for memory; None is the system's for temporary files.
    """

    watch: Callable[[str], contextlib.AbstractContextManager] = contextlib.nullcontext
    pad_groups: bool = False
    scratch: Path | None = None
