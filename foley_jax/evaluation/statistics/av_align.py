"""AV-Align: do the peaks of the motion meet the onsets of the audio?

Peaks of the video are the local maxima of the mean optical flow, peaks of the audio librosa's
onsets; the score is their intersection over their union (Yariv et al. 2023). Every strict local
maximum counts, however small, so a busy image has many peaks, and the score of a clip without
struck events says little. Read it beside the true audio and shuffled pairs.

Axis letters: T frames, H W image, C colours, L audio samples.
"""

from collections.abc import Sequence
import dataclasses
from typing import Literal

import numpy as np

from foley_jax.evaluation import onsets, optical_flow
from foley_jax.media import audio_peaks

Preset = Literal["default", "official"]


@dataclasses.dataclass(frozen=True)
class Peaks:
    """Times of what is seen and heard in one clip, seconds, ascending.

    Attributes:
      tolerance_s: one frame of the video.
    """

    seen_s: np.ndarray
    heard_s: np.ndarray
    tolerance_s: float


def motion_peaks(motion_T: np.ndarray, fps: float) -> np.ndarray:
    """Times of the strict local maxima of the motion, float64 [num_peaks].

    Frame t is at t / fps. The first and the last frame are never peaks.

    Args:
      motion_T: float [T], as `optical_flow.mean_motion` gives it.
    """
    middle = motion_T[1:-1]
    is_peak = (motion_T[:-2] < middle) & (middle > motion_T[2:])
    return (np.flatnonzero(is_peak) + 1) / fps


def find_peaks(
    frames_THWC: np.ndarray,
    audio_L: np.ndarray,
    fps: float,
    sample_rate_hz: int = audio_peaks.RATE_HZ,
) -> Peaks:
    """Looks at and listens to one clip.

    The official script takes all frames of the file at their own size and rate, and the audio at
    22050 Hz. Both matter: the flow's windows are in pixels, the tolerance is one frame.

    Args:
      frames_THWC: uint8 [T, H, W, 3], T >= 2.
      audio_L: float [L].
    Raises:
      ValueError: as `optical_flow.mean_motion`, or a rate that is not positive.
    """
    if fps <= 0:
        raise ValueError(f"fps is {fps}, expected a positive rate")
    seen = motion_peaks(optical_flow.mean_motion(frames_THWC), fps)
    return Peaks(seen, audio_peaks.onset_times(audio_L, sample_rate_hz), 1.0 / fps)


def score(peaks: Peaks, preset: Preset = "default") -> float:
    """Intersection over union of one clip's peaks.

    'default' matches one-to-one (the largest matching), at most one frame apart: in [0, 1].
    'official' counts the audio's peaks that have any motion peak less than one frame away:
    several may claim the same one, so an audio clip of many onsets can score above 1.

    Returns:
      nan where nothing is seen and nothing heard (the official script divides by zero there).
    Raises:
      ValueError: an unknown preset.
    Source: TempoTokens av_align.py, `calc_intersection_over_union`.
    """
    seen, heard = np.asarray(peaks.seen_s), np.asarray(peaks.heard_s)
    if preset == "default":
        met = len(onsets.match(heard, seen, peaks.tolerance_s))
    elif preset == "official":
        after = seen[None, :] - peaks.tolerance_s < heard[:, None]  # [heard, seen]
        before = heard[:, None] < seen[None, :] + peaks.tolerance_s
        met = int((after & before).any(axis=1).sum())
    else:
        raise ValueError(f"preset is {preset!r}, expected 'default' or 'official'")
    union = len(seen) + len(heard) - met
    return met / union if union else float("nan")


@dataclasses.dataclass(frozen=True)
class AvAlign:
    """Result over clips.

    Attributes:
      mean: over the clips that have a score; nan without any.
      score_N: float64 [N], nan for clips without any peak.
      num_without_peaks: clips that the mean leaves out.
    """

    mean: float
    score_N: np.ndarray
    num_without_peaks: int


def av_align(clips: Sequence[Peaks], preset: Preset = "default") -> AvAlign:
    """Mean of `score` over clips.

    Raises:
      ValueError: no clips, or an unknown preset.
    """
    if not clips:
        raise ValueError("no clips, expected at least one")
    score_N = np.array([score(clip, preset) for clip in clips], np.float64)
    scored = score_N[~np.isnan(score_N)]
    mean = float(scored.mean()) if scored.size else float("nan")
    return AvAlign(mean, score_N, len(score_N) - scored.size)
