"""Clips -> features in batches of equal length, decoded ahead in threads.

T frames, H W C image, D width.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import itertools
import math

import numpy as np

from foley_jax.data import pipeline

READ_THREADS = 4
HELD_BYTES = 1 << 28  # of frames in a batch, and of those decoded in advance: 44 clips of 10 s


def rows_of(
    source: pipeline.Source,
    positions: Sequence[int],
    extract_fn: Callable[[np.ndarray], np.ndarray],
    batch: int,
    devices: int = 1,
) -> Iterator[np.ndarray]:
    """Features [T, D] of clips in order; clips of one length that follow each other go together.

    Fewer at a time where they are so long that `batch` of them would be more than `HELD_BYTES`.

    Args:
      source: clips with frames.
      positions: which of them.
      extract_fn: uint8 [batch, T, H, W, 3] -> features [batch, T, D].
      batch: clips encoded together.
      devices: that share a batch; it remains a multiple of them.
    """
    with futures.ThreadPoolExecutor(READ_THREADS) as pool:
        decoded = _ahead(pool, source, positions, batch)
        for shape, run in itertools.groupby(decoded, key=lambda frames: frames.shape):
            most = HELD_BYTES // max(1, math.prod(shape)) // devices * devices
            size = min(batch, max(devices, most))
            for group in _batched(run, size):
                # a short batch is filled up, so that one program serves all
                full = np.stack([*group, *[group[-1]] * (size - len(group))])
                yield from extract_fn(full)[: len(group)]


def _ahead(
    pool: futures.Executor, source: pipeline.Source, positions: Sequence[int], batch: int
) -> Iterator[np.ndarray]:
    """Decoded frames in order, up to two batches, or `HELD_BYTES`, decoded in advance."""

    def decode(position: int) -> np.ndarray:
        return source[int(position)].frames_THWC()

    waiting: collections.deque[futures.Future] = collections.deque()
    most = READ_THREADS  # until it is known how large clips are
    for position in positions:
        while len(waiting) >= most:
            frames_THWC = waiting.popleft().result()
            most = max(1, min(2 * batch, HELD_BYTES // max(1, frames_THWC.nbytes)))
            yield frames_THWC
        waiting.append(pool.submit(decode, position))
    while waiting:
        yield waiting.popleft().result()


def _batched(items: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while group := list(itertools.islice(items, size)):
        yield group
