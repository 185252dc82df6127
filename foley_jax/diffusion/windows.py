"""Where the windows of a video lie: features on one side, latent columns on the other.

Both are placed by absolute time, so nothing drifts. In the paper a feature is 250 ms, a column 128
ms (hop 256) or 125 ms (hop 250): a window begins where a feature and a column begin together,
nearly enough.
Axis letters: L features of a window, V latent columns of a window, D feature width, F mel
bins, T mel frames, N windows.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """First feature and first latent column of one window."""

    feature: int
    column: int


@dataclasses.dataclass(frozen=True)
class WindowSpec:
    """The lengths of one window.

    Attributes:
      num_features: features the model is conditioned on (the paper's: 32).
      num_columns: latent columns the model makes (64).
      feature_s, column_s: seconds of each.
      overlap_s: least time that two neighbouring windows share.
      max_skew_s: most that the first feature and the first column of a window should lie apart;
        infinite for models that are told the exact times of their features.
    """

    num_features: int
    num_columns: int
    feature_s: float
    column_s: float
    overlap_s: float = 1.0
    max_skew_s: float = 0.016

    def column_of(self, feature: int) -> int:
        """The column whose start is nearest to that of a feature."""
        return round(feature * self.feature_s / self.column_s)

    def skew_s(self, feature: int) -> float:
        """How far a feature and its nearest column lie apart."""
        return abs(feature * self.feature_s - self.column_of(feature) * self.column_s)

    def window(self, feature: int) -> Window:
        return Window(feature, self.column_of(feature))


def plan(num_features: int, spec: WindowSpec) -> list[Window]:
    """Windows that cover all features, neighbours overlapping by at least `overlap_s`.

    A video of one window or less has the single window at 0. Where no window can both end with
    the video and begin within `max_skew_s`, the last one reaches past the end.
    Raises:
      ValueError: no features.
    """
    if num_features < 1:
        raise ValueError("the video has no features; it must show at least one frame")
    stride = max(1, spec.num_features - round(spec.overlap_s / spec.feature_s))
    last = max(0, num_features - spec.num_features)
    first = [0]
    while first[-1] < last:
        reach = first[-1] + stride
        in_step = [
            r for r in range(first[-1] + 1, reach + 1) if spec.skew_s(r) <= spec.max_skew_s + 1e-9
        ]
        final = [r for r in in_step if r >= last]
        onward = [r for r in in_step if r > first[-1] + stride // 2]
        if final:
            first.append(final[0])
        elif onward:
            first.append(onward[-1])
        else:
            choice = range(min(last, reach), reach + 1)
            first.append(min(choice, key=spec.skew_s))
    return [spec.window(feature) for feature in first]


def window_features(
    features_LD: np.ndarray, windows: Sequence[Window], spec: WindowSpec
) -> np.ndarray:
    """The features of every window, float32 [N, L, D]; past the end the last one repeats."""
    first = np.array([w.feature for w in windows])
    index = np.minimum(first[:, None] + np.arange(spec.num_features), len(features_LD) - 1)
    return np.asarray(features_LD, np.float32)[index]  # [N, L, D]


def feature_times(windows: Sequence[Window], spec: WindowSpec) -> np.ndarray:
    """Seconds from the start of each window's first column to its features, float32 [N, L]."""
    first_s = np.array([w.feature * spec.feature_s - w.column * spec.column_s for w in windows])
    return (first_s[:, None] + np.arange(spec.num_features) * spec.feature_s).astype(np.float32)


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
