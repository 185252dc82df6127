"""Pairs of audio and features that match, or do not: food of the alignment classifier.

T mel frames, L samples or features, D feature width, P audio clips (always 1).
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math

import numpy as np

from foley_jax.data import clips, records, split_merge
from foley_jax.media import specs

KINDS = ("true", "shifted", "other")  # by the number in "pair_B"
_DRAWS = 8  # of another record, until it is of another video


@dataclasses.dataclass(frozen=True)
class AlignmentPairs:
    """A window of features with its own audio, with shifted audio, or with another video's.

    Example: "audio_BPL" int16 [1, L]; "mel_frame_BT" int32 [window_frames]; "cavp_BLD" float32
    [num_features, D]; "context_s_BL" float32 [num_features], when each feature would stand relative
    to the start of the audio's window if the two matched (it never gives the shift away); "pair_B"
    int32, index into `KINDS`; only 0 matches.

    Both windows begin where a feature begins, to the nearest mel frame. A shift is at least
    `min_shift_s`; 10 s records leave 8 s windows shifts of up to 1.75 s. A record that was
    repeated to fill its length is in step with itself after each period, so shifts count
    from the nearest repetition; where none is large enough, the pair becomes one of kind "other".

    Attributes:
      true_share, shifted_share: of all pairs (paper: half and a quarter); the rest are "other".
      min_shift_s: the smallest shift, in seconds; the paper names none.
    Source: Diff-Foley, section 3.4; the official code has no such data set.
    """

    video: specs.VideoSpec
    audio: specs.AudioSpec
    window_frames: int = 512
    num_features: int = 32
    true_share: float = 0.5
    shifted_share: float = 0.25
    min_shift_s: float = 1.0
    clip_seconds: float = clips.CLIP_SECONDS

    def __post_init__(self):
        least = self._min_shift_features
        if least < 1 or least > self._last_feature:
            room = self._last_feature / self.video.fps
            raise ValueError(
                f"min_shift_s is {self.min_shift_s:g}; windows of {self.num_features} features in "
                f"records of {self.clip_seconds:g} s can be shifted by {1 / self.video.fps:g} to "
                f"{room:g} s"
            )
        shares = (self.true_share, self.shifted_share, 1 - self.true_share - self.shifted_share)
        if min(shares) < 0:
            raise ValueError(f"shares of true, shifted and other pairs are {shares}, below 0")

    @property
    def sizes(self) -> split_merge.WindowSizes:
        """Lengths of records and windows."""
        return clips.window_sizes(
            self.video, self.audio, self.window_frames, self.num_features, self.clip_seconds
        )

    @property
    def _last_feature(self) -> int:
        return split_merge.last_feature(self.sizes, self.window_frames, self.num_features)

    @property
    def _min_shift_features(self) -> int:
        return math.ceil(self.min_shift_s * self.video.fps - 1e-6)

    def __call__(
        self, source: Sequence[records.Clip], index: int, rng: np.random.Generator
    ) -> Mapping[str, np.ndarray]:
        clip, sizes = source[index], self.sizes
        line = self._timeline(clip)
        kind = self._kind(rng, len(source))
        own = audio_feature = int(rng.integers(self._last_feature + 1))
        if kind == "shifted":
            period = int(line.index.max()) + 1 if line.index[-1] < sizes.num_features - 1 else None
            choices = self._shifted_pairs(period)
            if choices:
                own, audio_feature = choices[int(rng.integers(len(choices)))]
            else:
                kind = "other"
        waveform = line
        if kind == "other":
            waveform = self._timeline(_of_another_video(source, index, clip, rng))
            audio_feature = int(rng.integers(self._last_feature + 1))
        frame = split_merge.frame_of(sizes, audio_feature)
        part = split_merge.Part(0, frame, self.window_frames, audio_feature, self.num_features)
        return {
            "audio_BPL": waveform.audio[None],
            "mel_frame_BT": (frame + np.arange(self.window_frames)).astype(np.int32),
            "cavp_BLD": clips.features(clip, line.index[own : own + self.num_features]),
            "context_s_BL": split_merge.part_times([part], sizes),
            "pair_B": np.int32(KINDS.index(kind)),
        }

    def _kind(self, rng: np.random.Generator, num_records: int) -> str:
        draw = rng.random()
        if draw < self.true_share:
            return "true"
        if draw < self.true_share + self.shifted_share:
            return "shifted"
        if num_records < 2:
            raise ValueError("pairs of different videos need two records; the split has one")
        return "other"

    def _shifted_pairs(self, period: int | None) -> list[tuple[int, int]]:
        """First features of all pairs of windows that are out of step for sure."""

        def shift(distance: int) -> int:
            return distance if period is None else min(distance % period, -distance % period)

        starts = range(self._last_feature + 1)
        return [
            (r, s) for r in starts for s in starts if shift(abs(r - s)) >= self._min_shift_features
        ]

    def _timeline(self, clip: records.Clip) -> clips.Timeline:
        clips.check_rate(clip, self.video, self.audio)
        return clips.Timeline.of(
            clip,
            fps=self.video.fps,
            num_frames=self.sizes.num_features,
            num_samples=self.sizes.num_samples - 1,
        )


def _of_another_video(
    source: Sequence[records.Clip], index: int, clip: records.Clip, rng: np.random.Generator
) -> records.Clip:
    """Any other record, of another video if one turns up in a few draws."""
    other = clip
    for _ in range(_DRAWS):
        other = source[(index + int(rng.integers(1, len(source)))) % len(source)]
        if other.source != clip.source:
            break
    return other
