"""Clips longer than the model's: windows that overlap, and their results joined again.

T length along time, W windows.
"""

from collections.abc import Sequence

import numpy as np


def starts(length: int, window: int, overlap: int) -> list[int]:
    """Where windows begin that together cover `length`; the last one ends with it.

    Args:
      length: frames in all; shorter than a window gives one window at 0.
      window, overlap: frames; 0 <= overlap < window.
    """
    if not 0 <= overlap < window:
        raise ValueError(f"overlap is {overlap}, expected 0 to {window - 1}")
    if length <= window:
        return [0]
    inner = range(0, length - window, window - overlap)
    return [*inner, length - window]


def cut(x_T: np.ndarray, at: Sequence[int], window: int) -> np.ndarray:
    """[T, ...] -> [W, window, ...]; what is missing at the end repeats the last entry."""
    index = np.minimum(np.arange(window)[None] + np.asarray(at)[:, None], len(x_T) - 1)
    return x_T[index]


def join(parts: Sequence[np.ndarray], at: Sequence[int], length: int) -> np.ndarray:
    """[window, ...] parts at their places -> float32 [length, ...]; overlaps fade into each other.

    A part counts the more the farther it is from its own edges, so no step is heard or seen.
    Parts of different lengths, or a place without a part, are errors of the caller.
    """
    size = len(parts[0])
    ramp_T = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1)).astype(np.float32)
    total = np.zeros((max(length, at[-1] + size), *parts[0].shape[1:]), np.float32)
    weight_T = np.zeros(len(total), np.float32)
    for part, first in zip(parts, at, strict=True):
        weights = ramp_T.reshape(-1, *(1,) * (part.ndim - 1))
        total[first : first + size] += weights * part
        weight_T[first : first + size] += ramp_T
    return total[:length] / weight_T[:length].reshape(-1, *(1,) * (total.ndim - 1))
