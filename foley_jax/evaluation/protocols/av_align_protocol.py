"""Protocol `av-align`: peaks of the reference video's motion against a system's onsets.

Item NAME is heard beside the video of NAME.mp4 of the reference; a video is its own audio's
reference. Needs no weights. Images longer than 256 pixels are shrunk, because the flow's windows
are in pixels: clips of unlike sizes become comparable, and a clip takes seconds, not minutes. The
published script takes them as they are (`av_align.find_peaks`), so figures of larger images
differ from its own; the matching is given both ways.
"""

from collections.abc import Mapping
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from foley_jax.evaluation import optical_flow
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.evaluation.statistics import av_align, bootstrap, pairs, remarks
from foley_jax.media import audio_peaks, container, specs
from foley_jax.media import video as video_io

MAX_SIDE = 256
PRESETS: Mapping[str, av_align.Preset] = {"av_align": "default", "av_align_official": "official"}


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
        raise container.MediaError("no_video", f"{path}: has no video to compare with")
    shrink = min(1.0, MAX_SIDE / max(info.height, info.width))
    size = (max(1, round(side * shrink)) for side in (info.height, info.width))
    frames = video_io.read_frames(path, specs.VideoSpec(info.fps, *size))
    if len(frames) < 2:
        raise container.MediaError("empty", f"{path}: {len(frames)} frame, expected 2 for motion")
    motion = optical_flow.mean_motion(frames)
    return Seen(av_align.motion_peaks(motion, info.fps), info.fps, len(frames) / info.fps)


@dataclasses.dataclass(frozen=True)
class AvAlign(rules_lib.ListeningRules):
    """The protocol."""

    name = "av-align"
    judges = "whether onsets fall on motion (temporal sync), not what sounds"
    key = "av_align"
    sample_rate_hz = audio_peaks.RATE_HZ
    columns = {
        "AV-Align": "av_align",
        "low": "av_align_low",
        "high": "av_align_high",
        "shuffled": "shuffled_av_align",
        "as published": "av_align_official",
        "clips without peaks": "clips_without_peaks",
    }
    more_columns = {"seeds": "seeds", "spread": "av_align_std"}
    contrasts = tuple(pairs.Contrast(key) for key in PRESETS)

    def settings(self) -> dict[str, Any]:
        return {
            "max_side": MAX_SIDE,
            "flow": dataclasses.asdict(optical_flow.Farneback()),
            "sample_rate_hz": self.sample_rate_hz,
            "num_pairings": pairs.NUM_PAIRINGS,
            "num_bootstrap": bootstrap.NUM_RESAMPLES,
        }

    def listen(self, audio_L: np.ndarray) -> np.ndarray:
        """Times of its onsets, seconds."""
        return audio_peaks.onset_times(audio_L, self.sample_rate_hz)

    def refer(self, path: Path, heard: np.ndarray) -> Seen:
        return look(path)

    def figures(
        self, heard: Mapping[str, np.ndarray], reference: Mapping[str, Seen]
    ) -> dict[str, float]:
        """AV-Align, as it should be and as published, each with its interval and shuffled."""
        audio_clips, seen = list(heard.values()), [reference[name] for name in heard]
        own = [_peaks(audio, video) for audio, video in zip(audio_clips, seen)]
        wrong = []
        for shift in pairs.rotations(len(seen)):
            turned = audio_clips[shift:] + audio_clips[:shift]
            wrong.append([_peaks(audio, video) for audio, video in zip(turned, seen)])
        found: dict[str, float] = {"clips": len(own)}
        for contrast in self.contrasts:
            preset = PRESETS[contrast.key]
            result = av_align.av_align(own, preset)
            found["clips_without_peaks"] = result.num_without_peaks
            chance = [av_align.av_align(peaks, preset).mean for peaks in wrong]
            scored_N = result.score_N[~np.isnan(result.score_N)]
            if scored_N.size:
                found |= pairs.of_means(contrast, scored_N, chance)
            else:
                found |= pairs.without(contrast, "nothing is seen and nothing heard in any clip")
        return found

    def row(self, heard: np.ndarray, reference: Seen) -> dict[str, float]:
        peaks = _peaks(heard, reference)
        none = remarks.absent("nothing is seen and nothing heard")
        scores = {key: av_align.score(peaks, preset) for key, preset in PRESETS.items()}
        return {
            "seen": len(peaks.seen_s),
            "heard": len(peaks.heard_s),
            **{k: none if remarks.is_absent(score) else score for k, score in scores.items()},
        }


def _peaks(heard_s: np.ndarray, seen: Seen) -> av_align.Peaks:
    """One clip's peaks; what audio clips after the last frame is not compared."""
    return av_align.Peaks(seen.peaks_s, heard_s[heard_s <= seen.length_s], 1.0 / seen.fps)
