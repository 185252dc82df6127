"""Arrays that may be longer than memory: made block by block, and walked through piece by piece.

Axis letters: T entries.
"""

from collections.abc import Iterator
import math
import mmap
import os
import tempfile

import numpy as np

HELD_BYTES = 8 << 20  # audio of two minutes; what is longer lies in a file
PIECE = 1 << 20  # entries that are walked through together


class Spool:
    """float32 entries, appended block by block; beyond `HELD_BYTES` they lie in a file.

    The file has no name: it is gone when the last array of it is, or the process ends.

    Args:
      shape: of one entry.
      folder: where the file may lie; None is the system's place for temporary files.
    """

    def __init__(self, shape: tuple[int, ...] = (), folder: str | os.PathLike | None = None):
        self._shape, self._folder = shape, folder
        self._blocks: list[np.ndarray] = []
        self._file = None
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, block_T: np.ndarray) -> None:
        """Adds entries [T, *shape] at the end.

        Raises:
          OSError: there is no room in the folder.
        """
        self._blocks.append(np.array(block_T, np.float32, order="C"))
        self._length += len(block_T)
        if self._file is None and 4 * self._length * math.prod(self._shape) > HELD_BYTES:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        if self._file is not None:
            for block in self._blocks:
                self._file.write(block.data)
            self._blocks = []

    def pad(self, length: int) -> None:
        """Appends zeros until there are `length` entries."""
        while self._length < length:
            self.append(np.zeros((min(PIECE, length - self._length), *self._shape), np.float32))

    def array(self) -> np.ndarray:
        """All entries, float32 [T, *shape]; an `np.memmap` that may be written to, if in a file."""
        shape = (self._length, *self._shape)
        if self._file is None:
            return np.concatenate([np.zeros((0, *self._shape), np.float32), *self._blocks])
        self._file.flush()
        return np.memmap(self._file, np.float32, "r+", shape=shape)


def pieces(array: np.ndarray, size: int | None = None) -> Iterator[np.ndarray]:
    """Copies of the array's entries in order, `size` (`PIECE`) at a time; see `part`."""
    size = size or PIECE
    for at in range(0, len(array), size):
        yield part(array, slice(at, at + size))


def part(array: np.ndarray, *where: slice) -> np.ndarray:
    """A copy of `array[where]`, which leaves nothing else of an array in a file in memory."""
    copy = np.array(array[where])
    _forget(array)
    return copy


def _forget(array: np.ndarray) -> None:
    """Gives back the memory that pages of a file take; they are read again when needed."""
    mapped = array
    while isinstance(mapped, np.ndarray) and not isinstance(mapped.base, mmap.mmap):
        mapped = mapped.base
    # of a private map ("c") what was written would be lost
    if isinstance(mapped, np.memmap) and mapped.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        mapped.base.madvise(mmap.MADV_DONTNEED)
