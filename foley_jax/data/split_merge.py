"""Split and merge: windows cut out of one record, or joined from stretches of two.

Pure index arithmetic; `data/clips.py` turns the indices into arrays.
"""

from collections.abc import Sequence
import dataclasses
import random
from typing import NamedTuple

import numpy as np

from foley_jax.media import specs


class Part(NamedTuple):
    """One stretch of one record: mel frames [frame, frame + num_frames) and features alike."""

    record: int
    frame: int
    num_frames: int
    row: int
    num_rows: int


@dataclasses.dataclass(frozen=True)
class WindowSizes:
    """Lengths that a window is cut with.

    Attributes:
      audio: front end of the mels.
      fps: features per second.
      num_samples: samples of a record's audio.
      num_frames: mel frames of a record.
      num_rows: features of a record.
      window_frames: mel frames of a window.
      window_features: features of a window.
    """

    audio: specs.AudioSpec
    fps: float
    num_samples: int
    num_frames: int
    num_rows: int
    window_frames: int
    window_features: int


def official(
    rng: random.Random, index: int, num_records: int, sizes: WindowSizes, merge_probability: float
) -> list[Part]:
    """Cuts a window out of one record, or joins stretches of two, as the official code does.

    Features follow from frames by rounding down, so audio and features may disagree by up to one
    feature.

    Args:
      rng: the official draws in the official order.
      index: record that the window belongs to.
      num_records: others are drawn from [0, num_records).
    Returns:
      One or two parts: `window_frames` mel frames and `window_features` features in all.
    Source: adm/data/video_spec_dataset.py.
    """
    s = sizes
    rate, hop = s.audio.sample_rate_hz, s.audio.hop
    merge = rng.uniform(0, 1) < merge_probability
    if not merge or num_records == 1:
        start = rng.randint(0, s.num_samples - s.window_frames * hop - 1)
        row = int(s.fps * start / rate)
        return [Part(index, start // hop, s.window_frames, row, s.window_features)]
    other = index
    while other == index:
        other = rng.randint(0, num_records - 1)
    shortest = 2 * rate // hop  # two seconds
    first = rng.randint(shortest, s.window_frames - shortest - 1)
    second = s.window_frames - first
    # bounded by the window, not by the record: the record's last frames are never used here
    start1 = rng.randint(0, s.window_frames - first - 1)
    start2 = rng.randint(0, s.window_frames - second - 1)
    row1, row2 = (int(s.fps * start * hop / rate) for start in (start1, start2))
    rows = int(s.fps * first * hop / rate)
    return [
        Part(index, start1, first, row1, rows),
        Part(other, start2, second, row2, s.window_features - rows),
    ]


def aligned(
    rng: random.Random, index: int, num_records: int, sizes: WindowSizes, merge_probability: float
) -> list[Part]:
    """As `official`, with every cut where a feature begins, to the nearest mel frame."""
    s = sizes
    merge = num_records > 1 and rng.uniform(0, 1) < merge_probability
    if not merge:
        row = rng.randint(0, last_row(s, s.window_frames, s.window_features))
        return [Part(index, frame_of(s, row), s.window_frames, row, s.window_features)]
    other = (index + rng.randint(1, num_records - 1)) % num_records
    shortest = min(round(2 * s.fps), s.window_features // 2)
    rows1 = rng.randint(shortest, s.window_features - shortest)
    rows2 = s.window_features - rows1
    frames1 = frame_of(s, rows1)
    frames2 = s.window_frames - frames1
    row1 = rng.randint(0, last_row(s, frames1, rows1))
    row2 = rng.randint(0, last_row(s, frames2, rows2))
    return [
        Part(index, frame_of(s, row1), frames1, row1, rows1),
        Part(other, frame_of(s, row2), frames2, row2, rows2),
    ]


def frame_of(sizes: WindowSizes, row: int) -> int:
    """Mel frame nearest to the beginning of a feature."""
    return round(row / sizes.fps / sizes.audio.frame_s)


def last_row(sizes: WindowSizes, num_frames: int, num_rows: int) -> int:
    """Last feature at which a stretch of that many frames and features can begin."""
    by_frames = int((sizes.num_frames - num_frames) * sizes.audio.frame_s * sizes.fps)
    return min(sizes.num_rows - num_rows, by_frames)


def part_times(parts: Sequence[Part], sizes: WindowSizes) -> np.ndarray:
    """Seconds from the start of the window to every feature, float32 [window_features]."""
    times, offset = [], 0
    for part in parts:
        rows = part.row + np.arange(part.num_rows)
        times.append(rows / sizes.fps + (offset - part.frame) * sizes.audio.frame_s)
        offset += part.num_frames
    return np.concatenate(times).astype(np.float32)
