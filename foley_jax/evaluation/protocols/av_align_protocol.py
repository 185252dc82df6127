"""Protocol `av-align`: peaks of the reference video's motion against a system's onsets.

Item NAME is heard beside the picture of NAME.mp4 of the reference; a video is its own sound's
reference. Needs no weights. Pictures longer than 256 pixels are shrunk, because the flow's windows
are in pixels: clips of unlike sizes become comparable, and a clip takes seconds, not minutes. The
published script takes them as they are (`av_align.find_peaks`), so figures of larger pictures
differ from its own; the matching is given both ways.
"""

from collections.abc import Mapping
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from foley_jax.evaluation import optical_flow
from foley_jax.evaluation.protocols import protocol
from foley_jax.evaluation.statistics import av_align, bootstrap, scores
from foley_jax.media import container, sound_peaks, specs
from foley_jax.media import video as video_io

MAX_SIDE = 256


@dataclasses.dataclass(frozen=True)
class Seen:
    """Motion of one video: times of its peaks, and its rate and length."""

    peaks_s: np.ndarray
    fps: float
    length_s: float


def look(path: Path) -> Seen:
    """Motion of a video at its own rate, its longer side at most `MAX_SIDE`.

    Raises:
      MediaError: "no_video", or as `video.read_frames`; "empty" also of a single frame.
    """
    info = video_io.probe(path)
    if not info.has_video:
        raise container.MediaError("no_video", f"{path}: has no picture to compare with")
    shrink = min(1.0, MAX_SIDE / max(info.height, info.width))
    size = (max(1, round(side * shrink)) for side in (info.height, info.width))
    frames = video_io.read_frames(path, specs.VideoSpec(info.fps, *size))
    if len(frames) < 2:
        raise container.MediaError("empty", f"{path}: {len(frames)} frame, expected 2 for motion")
    motion = optical_flow.mean_motion(frames)
    return Seen(av_align.motion_peaks(motion, info.fps), info.fps, len(frames) / info.fps)


@dataclasses.dataclass(frozen=True)
class AvAlign(protocol.ListeningRules):
    """The protocol."""

    name = "av-align"
    key = "av_align"
    sample_rate_hz = sound_peaks.RATE_HZ
    columns = {
        "AV-Align": "av_align",
        "low": "av_align_low",
        "high": "av_align_high",
        "shuffled": "shuffled_av_align",
        "as published": "av_align_official",
        "clips without peaks": "clips_without_peaks",
    }
    more_columns = {"seeds": "seeds", "spread": "av_align_std"}

    def settings(self) -> dict[str, Any]:
        return {
            "max_side": MAX_SIDE,
            "flow": dataclasses.asdict(optical_flow.Farneback()),
            "sample_rate_hz": self.sample_rate_hz,
            "num_pairings": scores.NUM_PAIRINGS,
            "num_bootstrap": bootstrap.NUM_RESAMPLES,
        }

    def listen(self, audio_L: np.ndarray) -> np.ndarray:
        """Times of its onsets, seconds."""
        return sound_peaks.onset_times(audio_L, self.sample_rate_hz)

    def refer(self, path: Path, heard: np.ndarray) -> Seen:
        return look(path)

    def figures(
        self, heard: Mapping[str, np.ndarray], reference: Mapping[str, Seen]
    ) -> dict[str, float]:
        """AV-Align with its 95 % interval over clips, shuffled, and as published."""
        sounds, seen = list(heard.values()), [reference[name] for name in heard]
        own = [_peaks(sound, video) for sound, video in zip(sounds, seen)]
        result = av_align.av_align(own)
        scored = result.score_N[~np.isnan(result.score_N)]
        found = {"clips": len(own), "clips_without_peaks": result.num_without_peaks}
        found["av_align"] = found["av_align_low"] = found["av_align_high"] = float("nan")
        if scored.size:
            interval = bootstrap.mean_interval(scored)
            found |= {
                "av_align": interval.value,
                "av_align_low": interval.low,
                "av_align_high": interval.high,
            }
        found["shuffled_av_align"] = shuffled(sounds, seen)
        found["av_align_official"] = av_align.av_align(own, "official").mean
        return found

    def row(self, heard: np.ndarray, reference: Seen) -> dict[str, float]:
        peaks = _peaks(heard, reference)
        return {
            "seen": len(peaks.seen_s),
            "heard": len(peaks.heard_s),
            "av_align": av_align.score(peaks),
            "av_align_official": av_align.score(peaks, "official"),
        }


def shuffled(sounds: list[np.ndarray], seen: list[Seen]) -> float:
    """Mean AV-Align of sounds beside other clips' pictures; nan for less than two clips."""
    means = []
    for shift in scores.rotations(len(seen)):
        turned = sounds[shift:] + sounds[:shift]
        means.append(av_align.av_align([_peaks(s, v) for s, v in zip(turned, seen)]).mean)
    return float(np.mean(means)) if means else float("nan")


def _peaks(heard_s: np.ndarray, seen: Seen) -> av_align.Peaks:
    """One clip's peaks; what sounds after the last frame is not compared."""
    return av_align.Peaks(seen.peaks_s, heard_s[heard_s <= seen.length_s], 1.0 / seen.fps)
