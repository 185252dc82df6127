"""Where the windows of a video lie: feature rows on one side, latent columns on the other.

Both are placed by absolute time, so nothing drifts. A row is 250 ms, a column 128 ms (hop 256) or
125 ms (hop 250): a window begins where a row and a column begin together, nearly enough.
Axis letters: L feature rows of a window, V latent columns of a window, D feature width, F mel
bins, T mel frames, N windows.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """First feature row and first latent column of one window."""

    row: int
    column: int


@dataclasses.dataclass(frozen=True)
class WindowSpec:
    """The lengths of one window.

    Attributes:
      num_rows: feature rows the model is conditioned on (32).
      num_columns: latent columns the model makes (64).
      row_s, column_s: seconds of each.
      overlap_s: least time that two neighbouring windows share.
      max_skew_s: most that the first row and the first column of a window should lie apart;
        infinite for models that are told the exact times of their rows.
    """

    num_rows: int
    num_columns: int
    row_s: float
    column_s: float
    overlap_s: float = 1.0
    max_skew_s: float = 0.016

    def column_of(self, row: int) -> int:
        """The column whose start is nearest to that of a row."""
        return round(row * self.row_s / self.column_s)

    def skew_s(self, row: int) -> float:
        """How far a row and its nearest column lie apart."""
        return abs(row * self.row_s - self.column_of(row) * self.column_s)

    def window(self, row: int) -> Window:
        return Window(row, self.column_of(row))


def plan(num_rows: int, spec: WindowSpec) -> list[Window]:
    """Windows that cover all features, neighbours overlapping by at least `overlap_s`.

    A video of one window or less has the single window at 0. Where no window can both end with
    the video and begin within `max_skew_s`, the last one reaches past the end.
    Raises:
      ValueError: no features.
    """
    if num_rows < 1:
        raise ValueError("the video has no features; it must show at least one frame")
    stride = max(1, spec.num_rows - round(spec.overlap_s / spec.row_s))
    last = max(0, num_rows - spec.num_rows)
    rows = [0]
    while rows[-1] < last:
        reach = rows[-1] + stride
        in_step = [
            r for r in range(rows[-1] + 1, reach + 1) if spec.skew_s(r) <= spec.max_skew_s + 1e-9
        ]
        final = [r for r in in_step if r >= last]
        onward = [r for r in in_step if r > rows[-1] + stride // 2]
        if final:
            rows.append(final[0])
        elif onward:
            rows.append(onward[-1])
        else:
            choice = range(min(last, reach), reach + 1)
            rows.append(min(choice, key=spec.skew_s))
    return [spec.window(row) for row in rows]


def official(num_rows: int, spec: WindowSpec) -> list[Window]:
    """The notebook's windows: side by side, a rest of less than a window dropped (spec D4).

    8 s of features answer to 8.192 s of columns, so the audio falls behind by that much a window. A
    video shorter than a window, which the notebook cannot do, has one.
    """
    count = max(1, num_rows // spec.num_rows)
    return [Window(i * spec.num_rows, i * spec.num_columns) for i in range(count)]


def window_features(
    features_LD: np.ndarray, windows: Sequence[Window], spec: WindowSpec
) -> np.ndarray:
    """The features of every window, float32 [N, L, D]; past the end the last one repeats."""
    first = np.array([w.row for w in windows])
    index = np.minimum(first[:, None] + np.arange(spec.num_rows), len(features_LD) - 1)
    return np.asarray(features_LD, np.float32)[index]  # [N, L, D]


def row_times(windows: Sequence[Window], spec: WindowSpec) -> np.ndarray:
    """Seconds from the start of each window's first column to its rows, float32 [N, L]."""
    first_s = np.array([w.row * spec.row_s - w.column * spec.column_s for w in windows])
    return (first_s[:, None] + np.arange(spec.num_rows) * spec.row_s).astype(np.float32)


def weights(first: Sequence[int], width: int) -> np.ndarray:
    """Shares of windows in what they make, adding to one wherever a window lies.

    Each share goes with the squared distance from the window's nearer end: smooth inside an
    overlap, one where a window is alone, and least where the model knows least.

    Args:
      first: first column (or frame) of each window.
      width: columns (or frames) of a window.
    Returns:
      float32 [N, width].
    """
    position = np.arange(width) + 0.5
    shape = np.minimum(position, width - position) ** 2
    total = np.zeros(max(first) + width)
    for start in first:
        total[start : start + width] += shape
    return np.stack([shape / total[f : f + width] for f in first]).astype(np.float32)


def join(mels_NFT: Sequence[np.ndarray], first_frames: Sequence[int]) -> np.ndarray:
    """Lays window mels [F, T] on one time line, blended where they overlap.

    Returns:
      float32 [F, frames], up to the end of the last window; silence where no window lies.
    """
    return np.concatenate(list(joined(mels_NFT, first_frames)), axis=1)


def joined(mels_FT: Iterable[np.ndarray], first_frames: Sequence[int]) -> Iterator[np.ndarray]:
    """`join` piece by piece: yields float32 [F, frames] that no later window reaches.

    Args:
      mels_FT: of the windows, taken one after the other.
      first_frames: of each, in rising order.
    """
    share_NT: np.ndarray | None = None
    for number, (mel_FT, start) in enumerate(zip(mels_FT, first_frames, strict=True)):
        num_bins, width = mel_FT.shape
        if share_NT is None:
            share_NT = weights(first_frames, width)
            at, open_FT = 0, np.zeros((num_bins, 0), np.float32)  # frames from `at` on
        missing = start + width - at - open_FT.shape[1]
        open_FT = np.pad(open_FT, ((0, 0), (0, missing)))
        if start > at:
            yield open_FT[:, : start - at]
            at, open_FT = start, open_FT[:, start - at :]
        open_FT += share_NT[number][None] * mel_FT
    yield open_FT
