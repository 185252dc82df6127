"""Clips -> feature rows in batches of equal length, decoded ahead in threads.

T frames, H W C picture, D width.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import itertools

import numpy as np

from foley_jax.data import pipeline

READ_THREADS = 4


def rows_of(
    source: pipeline.Source,
    positions: Sequence[int],
    extract_fn: Callable[[np.ndarray], np.ndarray],
    batch: int,
) -> Iterator[np.ndarray]:
    """Rows [T, D] of clips in order; clips of one length that follow each other go together.

    Args:
      source: clips with frames.
      positions: which of them.
      extract_fn: uint8 [batch, T, H, W, 3] -> rows [batch, T, D].
      batch: clips encoded together.
    """
    with futures.ThreadPoolExecutor(READ_THREADS) as pool:
        decoded = _ahead(pool, source, positions, batch)
        for _, run in itertools.groupby(decoded, key=lambda frames: frames.shape):
            for group in _batched(run, batch):
                # a short batch is filled up, so that one program serves all
                full = np.stack([*group, *[group[-1]] * (batch - len(group))])
                yield from extract_fn(full)[: len(group)]


def _ahead(
    pool: futures.Executor, source: pipeline.Source, positions: Sequence[int], batch: int
) -> Iterator[np.ndarray]:
    """Decoded frames in order, up to two batches decoded in advance."""

    def decode(position: int) -> np.ndarray:
        return source[int(position)].frames_THWC()

    waiting: list[futures.Future] = []
    for position in positions:
        waiting.append(pool.submit(decode, position))
        if len(waiting) >= 2 * batch:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def _batched(items: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while group := list(itertools.islice(items, size)):
        yield group
