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
    feature: int
    num_features: int


@dataclasses.dataclass(frozen=True)
class WindowSizes:
    """Lengths that a window is cut with.

    Attributes:
      audio: front end of the mels.
      fps: features per second.
      num_samples: samples of a record's audio.
      num_frames: mel frames of a record.
      num_features: features of a record.
      window_frames: mel frames of a window.
      window_features: features of a window.
    """

    audio: specs.AudioSpec
    fps: float
    num_samples: int
    num_frames: int
    num_features: int
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
        feature = int(s.fps * start / rate)
        return [Part(index, start // hop, s.window_frames, feature, s.window_features)]
    other = index
    while other == index:
        other = rng.randint(0, num_records - 1)
    shortest = 2 * rate // hop  # two seconds
    first = rng.randint(shortest, s.window_frames - shortest - 1)
    second = s.window_frames - first
    # bounded by the window, not by the record: the record's last frames are never used here
    start1 = rng.randint(0, s.window_frames - first - 1)
    start2 = rng.randint(0, s.window_frames - second - 1)
    feature1, feature2 = (int(s.fps * start * hop / rate) for start in (start1, start2))
    count = int(s.fps * first * hop / rate)
    return [
        Part(index, start1, first, feature1, count),
        Part(other, start2, second, feature2, s.window_features - count),
    ]


def aligned(
    rng: random.Random, index: int, num_records: int, sizes: WindowSizes, merge_probability: float
) -> list[Part]:
    """As `official`, with every cut where a feature begins, to the nearest mel frame."""
    s = sizes
    merge = num_records > 1 and rng.uniform(0, 1) < merge_probability
    if not merge:
        feature = rng.randint(0, last_feature(s, s.window_frames, s.window_features))
        return [Part(index, frame_of(s, feature), s.window_frames, feature, s.window_features)]
    other = (index + rng.randint(1, num_records - 1)) % num_records
    shortest = min(round(2 * s.fps), s.window_features // 2)
    count1 = rng.randint(shortest, s.window_features - shortest)
    count2 = s.window_features - count1
    frames1 = frame_of(s, count1)
    frames2 = s.window_frames - frames1
    feature1 = rng.randint(0, last_feature(s, frames1, count1))
    feature2 = rng.randint(0, last_feature(s, frames2, count2))
    return [
        Part(index, frame_of(s, feature1), frames1, feature1, count1),
        Part(other, frame_of(s, feature2), frames2, feature2, count2),
    ]


def frame_of(sizes: WindowSizes, feature: int) -> int:
    """Mel frame nearest to the beginning of a feature."""
    return round(feature / sizes.fps / sizes.audio.frame_s)


def last_feature(sizes: WindowSizes, num_frames: int, num_features: int) -> int:
    """Last feature at which a stretch of that many frames and features can begin."""
    by_frames = int((sizes.num_frames - num_frames) * sizes.audio.frame_s * sizes.fps)
    return min(sizes.num_features - num_features, by_frames)


def part_times(parts: Sequence[Part], sizes: WindowSizes) -> np.ndarray:
    """Seconds from the start of the window to every feature, float32 [window_features]."""
    times, offset = [], 0
    for part in parts:
        features = part.feature + np.arange(part.num_features)
        times.append(features / sizes.fps + (offset - part.frame) * sizes.audio.frame_s)
        offset += part.num_frames
    return np.concatenate(times).astype(np.float32)
