"""Records -> examples: CAVP clips, split-and-merged windows, crops.

All host code: NumPy in read threads. Every record is first brought to `clip_seconds` of image,
features and audio; a shorter one is repeated with one period for all three, a longer one cut.

Axis letters: N clips, P audio clips, T mel frames (in frames_NTHWC: video frames), L samples or
features, D feature width, H W C image.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import random

import numpy as np

from foley_jax.data import records, split_merge
from foley_jax.media import specs

CLIP_SECONDS = 10.0  # VGGSound's length


def sample_starts(
    rng: random.Random, *, num_clips: int, clip_frames: int, num_frames: int, min_gap: int
) -> list[int]:
    """Ascending first frames of `num_clips` clips, at least `min_gap` frames apart.

    Each start is uniform between the one before plus `min_gap` and the last that leaves room for
    the clips after it; this is not a uniform draw among all valid tuples.

    Args:
      rng: drawn from once per clip.
      num_frames: length of the video.
    Raises:
      ValueError: the video is too short.
    Source: open_cavp data.py `sample_temporal_index`.
    """
    last = num_frames - clip_frames
    if last < (num_clips - 1) * min_gap:
        raise ValueError(
            f"a video of {num_frames} frames has no room for {num_clips} clips of {clip_frames} "
            f"frames, {min_gap} apart; it needs {clip_frames + (num_clips - 1) * min_gap}"
        )
    starts, low = [], 0
    for remaining in reversed(range(num_clips)):
        starts.append(rng.randint(low, last - remaining * min_gap))
        low = starts[-1] + min_gap
    return starts


@dataclasses.dataclass(frozen=True)
class Timeline:
    """How one record fills `num_frames` frames (or features) and `num_samples` samples.

    A record with too few frames is repeated, image, features and audio with the same period.

    Attributes:
      index: which of the record's frames stands at 0, 1, ..., num_frames - 1.
      audio: int16 [num_samples].
    """

    index: np.ndarray
    audio: np.ndarray

    @classmethod
    def of(cls, clip: records.Clip, *, fps: float, num_frames: int, num_samples: int) -> "Timeline":
        """Raises ValueError if the record has no audio, or neither frames nor features."""
        available = len(clip.frames) or (0 if clip.cavp_TD is None else len(clip.cavp_TD))
        if available == 0 or len(clip.audio) == 0:
            raise ValueError(
                f"clip {clip.id} of {clip.source} has {available} frames or features and "
                f"{len(clip.audio)} samples of audio; training needs both"
            )
        index, audio = np.arange(num_frames), clip.audio
        if available < num_frames:
            with_audio = int(len(audio) / clip.sample_rate_hz * fps + 1e-6)  # whole frames
            period = max(1, min(with_audio, available))
            index = index % period
            audio = np.resize(
                _padded(audio, round(period / fps * clip.sample_rate_hz)), num_samples
            )  # repeats
        return cls(index, _padded(audio, num_samples))


def _padded(audio_L: np.ndarray, num_samples: int) -> np.ndarray:
    """Cut, or filled with silence, to `num_samples`."""
    audio_L = audio_L[:num_samples]
    return np.pad(audio_L, (0, num_samples - len(audio_L)))


def check_rate(clip: records.Clip, video: specs.VideoSpec, audio: specs.AudioSpec) -> None:
    """Raises ValueError if a record's rates are not those of the config."""
    if clip.fps != video.fps or clip.sample_rate_hz != audio.sample_rate_hz:
        raise ValueError(
            f"the shards hold {clip.fps:g} frames/s and {clip.sample_rate_hz} Hz, the config wants "
            f"{video.fps:g} and {audio.sample_rate_hz}; change config.video and config.audio or "
            "prepare the videos again"
        )


def check_size(frames: np.ndarray, video: specs.VideoSpec) -> None:
    """Raises ValueError if images [..., H, W, 3] are not of the config's size."""
    height, width = frames.shape[-3:-1]
    if (height, width) != (video.height, video.width):
        raise ValueError(
            f"the shards hold {height}x{width} images, config.video wants "
            f"{video.height}x{video.width}; change the config or prepare the videos again"
        )


def _record_samples(audio: specs.AudioSpec, clip_seconds: float) -> int:
    # the official front end drops the last sample, so that 10 s are 625 frames and not 626
    return audio.num_samples(clip_seconds) - 1


def _python_rng(rng: np.random.Generator) -> random.Random:
    return random.Random(int(rng.integers(2**63)))


@dataclasses.dataclass(frozen=True)
class CavpClips:
    """Several short clips of one record, for contrastive training.

    Example: "frames_BNTHWC" uint8 [N, T, H, W, 3]; "audio_BL" int16 [L], the whole audio;
    "mel_start_BN" int32 [N], first mel frame of each clip.
    """

    video: specs.VideoSpec
    audio: specs.AudioSpec
    clip_frames: int = 16
    num_clips: int = 3
    min_gap_frames: int = 8
    clip_seconds: float = CLIP_SECONDS

    def __call__(
        self, source: Sequence[records.Clip], index: int, rng: np.random.Generator
    ) -> Mapping[str, np.ndarray]:
        clip = source[index]
        check_rate(clip, self.video, self.audio)
        num_frames = self.video.num_frames(self.clip_seconds)
        starts = sample_starts(
            _python_rng(rng),
            num_clips=self.num_clips,
            clip_frames=self.clip_frames,
            num_frames=num_frames,
            min_gap=self.min_gap_frames,
        )
        line = Timeline.of(
            clip,
            fps=self.video.fps,
            num_frames=num_frames,
            num_samples=_record_samples(self.audio, self.clip_seconds),
        )
        wanted_NT = line.index[np.array(starts)[:, None] + np.arange(self.clip_frames)]
        frames_NTHWC = clip.frames_at(wanted_NT)  # overlaps are decoded once
        check_size(frames_NTHWC, self.video)
        start_s = np.array(starts) / self.video.fps
        return {
            "frames_BNTHWC": frames_NTHWC,
            "audio_BL": line.audio,
            # rounded down, as the official int(frame / 4 * 16000 / 250)
            "mel_start_BN": (start_s * self.audio.sample_rate_hz // self.audio.hop).astype(
                np.int32
            ),
        }


def window_sizes(
    video: specs.VideoSpec,
    audio: specs.AudioSpec,
    window_frames: int,
    num_features: int,
    clip_seconds: float,
) -> split_merge.WindowSizes:
    """Lengths of records of `clip_seconds` and of windows in them.

    Raises:
      ValueError: the windows are longer than the records.
    """
    num_samples = _record_samples(audio, clip_seconds)
    sizes = split_merge.WindowSizes(
        audio=audio,
        fps=video.fps,
        num_samples=num_samples + 1,
        num_frames=audio.num_frames(num_samples),
        num_features=video.num_frames(clip_seconds),
        window_frames=window_frames,
        window_features=num_features,
    )
    if sizes.num_frames < window_frames or sizes.num_features < num_features:
        raise ValueError(
            f"a window of {window_frames} mel frames and {num_features} features is longer "
            f"than a record of {clip_seconds:g} s ({sizes.num_frames} mel frames, "
            f"{sizes.num_features} features)"
        )
    return sizes


@dataclasses.dataclass(frozen=True)
class LdmWindows:
    """A window of one record, or of two joined, with its features.

    Example: "audio_BPL" int16 [P, L], P = 2 where merging is possible, else 1; "mel_frame_BT"
    int32 [window_frames], into the mels of the P audio clips laid end to end; "cavp_BLD" float32
    [num_features, D]; "context_s_BL" float32 [num_features], start of each feature relative to
    the window.

    With `aligned=False` features are chosen as in the official code and said to be at 0, 1/fps,
    ...; with True they are the features of that very time, and said to be where they are.
    """

    video: specs.VideoSpec
    audio: specs.AudioSpec
    window_frames: int = 512
    num_features: int = 32
    merge_probability: float = 0.5
    aligned: bool = False
    clip_seconds: float = CLIP_SECONDS

    def __post_init__(self):
        _ = self.sizes  # checks them

    @property
    def sizes(self) -> split_merge.WindowSizes:
        """Lengths of records and windows."""
        return window_sizes(
            self.video, self.audio, self.window_frames, self.num_features, self.clip_seconds
        )

    def __call__(
        self, source: Sequence[records.Clip], index: int, rng: np.random.Generator
    ) -> Mapping[str, np.ndarray]:
        sizes = self.sizes
        choose = split_merge.aligned if self.aligned else split_merge.official
        parts = choose(_python_rng(rng), index, len(source), sizes, self.merge_probability)
        num_audio = 2 if self.merge_probability > 0 else 1
        audio_PL = np.zeros((num_audio, sizes.num_samples - 1), np.int16)
        cavp, frames = [], []
        for p, part in enumerate(parts):
            clip = source[part.record]
            check_rate(clip, self.video, self.audio)
            line = Timeline.of(
                clip,
                fps=sizes.fps,
                num_frames=sizes.num_features,
                num_samples=audio_PL.shape[1],
            )
            audio_PL[p] = line.audio
            cavp.append(features(clip, line.index[part.feature : part.feature + part.num_features]))
            frames.append(p * sizes.num_frames + part.frame + np.arange(part.num_frames))
        if self.aligned:
            times = split_merge.part_times(parts, sizes)
        else:
            times = (np.arange(self.num_features) / sizes.fps).astype(np.float32)
        return {
            "audio_BPL": audio_PL,
            "mel_frame_BT": np.concatenate(frames).astype(np.int32),
            "cavp_BLD": np.concatenate(cavp),
            "context_s_BL": times,
        }


def features(clip: records.Clip, index: np.ndarray) -> np.ndarray:
    """CAVP features at `index`, float32 [len(index), D]."""
    if clip.cavp_TD is None:
        raise ValueError(
            f"clip {clip.id} has no CAVP features; make feature shards with "
            "`python -m data_prep.features SHARDS FEATURES --model=runs/cavp` and train on those"
        )
    if len(clip.cavp_TD) <= index.max():
        raise ValueError(
            f"clip {clip.id} has {len(clip.cavp_TD)} features for more frames; "
            "make the features again"
        )
    return np.asarray(clip.cavp_TD[index], np.float32)


@dataclasses.dataclass(frozen=True)
class AudioCrops:
    """A stretch of one record's audio, for the autoencoder.

    Example: "audio_BL" int16 [L], the whole audio; "start_B" int32, first of the `crop_frames`
    mel frames.
    """

    audio: specs.AudioSpec
    crop_frames: int = 512
    clip_seconds: float = CLIP_SECONDS

    def __call__(
        self, source: Sequence[records.Clip], index: int, rng: np.random.Generator
    ) -> Mapping[str, np.ndarray]:
        clip = source[index]
        num_samples = _record_samples(self.audio, self.clip_seconds)
        last = self.audio.num_frames(num_samples) - self.crop_frames
        if last < 0:
            raise ValueError(
                f"a crop of {self.crop_frames} mel frames is longer than a record of "
                f"{self.clip_seconds:g} s ({last + self.crop_frames} mel frames)"
            )
        line = Timeline.of(
            clip,
            fps=clip.fps,
            num_frames=int(self.clip_seconds * clip.fps),
            num_samples=num_samples,
        )
        return {
            "audio_BL": line.audio,
            "start_B": np.int32(rng.integers(last + 1)),
        }
