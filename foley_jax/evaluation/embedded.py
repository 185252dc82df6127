"""Embedded scenes: their true events, what is heard in their audio clips, and of which material.

Axis letters: F mel bins, T mel frames.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
from pathlib import Path

import numpy as np
import tqdm

from foley_jax.evaluation import onsets, run_card
from foley_jax.evaluation.statistics import bootstrap, pairs, scores
from foley_jax.media import audio as audio_io
from foley_jax.media import mel as mel_lib
from foley_jax.media import specs

AUDIO = specs.AudioSpec()
STRIKE_S = 0.12  # the spectrum of a strike is the mean mel over this time


@dataclasses.dataclass(frozen=True)
class Truth:
    """True events of one clip: times in seconds, ascending, and their materials."""

    name: str
    video: Path
    level: str
    times_s: np.ndarray
    materials: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Heard:
    """Everything that the detector hears in one audio clip."""

    mel_FT: np.ndarray
    onsets_s: np.ndarray


def read_scene(path: Path) -> Truth:
    """The truth of one clip, NAME.json.

    Raises:
      OSError, ValueError, KeyError: no file, or another kind of file.
    """
    scene = json.loads(path.read_text())
    events = sorted(scene["events"], key=lambda e: e["time_s"])
    return Truth(
        name=path.stem,
        video=path.with_suffix(".mp4"),
        level=scene["level"],
        times_s=np.array([e["time_s"] for e in events], np.float64),
        materials=tuple(e["material"] for e in events),
    )


def read_truth(folder: Path) -> list[Truth]:
    """All clips of a folder of embedded scenes, by name.

    Raises:
      FileNotFoundError: the folder holds no truth files.
    """
    there = run_card.find_items(folder, (".json",)).values()
    clips = [read_scene(path) for path in there if path.parent == folder]
    if not clips:
        raise FileNotFoundError(
            f"{folder} holds no truth files (NAME.json beside NAME.mp4); make the embedded set "
            "with `python -m data_prep.scenes`"
        )
    return clips


def hear(audio: np.ndarray, detector: onsets.Detector) -> Heard:
    """Log-mel and onsets of a waveform, float32 [samples] at 16 kHz."""
    mel_FT = np.asarray(mel_lib.log_mel(audio[None], AUDIO))[0]
    return Heard(mel_FT, detector(mel_FT, AUDIO.frame_s))


def strike_spectrum(mel_FT: np.ndarray, time_s: float) -> np.ndarray:
    """Mean log-mel over the `STRIKE_S` after a strike, float [F]."""
    start = min(int(time_s / AUDIO.frame_s), mel_FT.shape[1] - 1)
    return mel_FT[:, start : start + max(1, round(STRIKE_S / AUDIO.frame_s))].mean(axis=1)


class MaterialClassifier:
    """Ridge regression from strike spectra to materials, fitted on true audio clips."""

    def __init__(self, spectra_NF: np.ndarray, materials: Sequence[str], ridge: float = 1e-2):
        self.names = sorted(set(materials))
        target = np.array([[m == n for n in self.names] for m in materials], np.float64)
        x = _with_bias(spectra_NF)
        gram = x.T @ x + ridge * len(x) * np.eye(x.shape[1])
        self.weights = np.linalg.solve(gram, x.T @ target)

    def __call__(self, spectra_NF: np.ndarray) -> list[str]:
        return [self.names[i] for i in (_with_bias(spectra_NF) @ self.weights).argmax(1)]

    @classmethod
    def of_scenes(cls, clips: Sequence[Truth]) -> "MaterialClassifier":
        """Fitted on the scenes' own audio clips."""
        # blows of one object at a time: in hard scenes others ring into them
        alone = [clip for clip in clips if clip.level != "hard"]
        bar = tqdm.tqdm(alone, desc="materials", unit="clip", leave=False)
        detector, rate_hz = onsets.Detector(), AUDIO.sample_rate_hz
        heard = {c.name: hear(audio_io.load(c.video, rate_hz), detector) for c in bar}
        return cls.fit(alone, heard)

    @classmethod
    def fit(cls, clips: Sequence[Truth], heard: Mapping[str, Heard]) -> "MaterialClassifier":
        spectra = [strike_spectrum(heard[c.name].mel_FT, t) for c in clips for t in c.times_s]
        return cls(np.stack(spectra), [m for c in clips for m in c.materials])


def _with_bias(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def material_figures(
    contrast: pairs.Contrast,
    clips: Sequence[Truth],
    heard: Sequence[Heard],
    classify: MaterialClassifier,
) -> dict[str, float]:
    """Share of matched events whose audio is of the right material, and for wrong pairs."""
    counts_N2 = _right_of_matched(clips, heard, classify)
    if not counts_N2[:, 1].any():
        return pairs.without(contrast, "no onset meets a true event")

    def share(sums: np.ndarray) -> float:  # a selection without a match counts as 0
        return float(sums[0] / max(sums[1], 1))

    turned = [(*heard[shift:], *heard[:shift]) for shift in pairs.rotations(len(clips))]
    wrong = [_right_of_matched(clips, audio_clips, classify).sum(axis=0) for audio_clips in turned]
    return pairs.figures(
        contrast,
        lambda: bootstrap.sums_interval(counts_N2, share),
        [share(sums) if sums[1] else float("nan") for sums in wrong],
        len(clips),
    )


def _right_of_matched(
    clips: Sequence[Truth], heard: Sequence[Heard], classify: MaterialClassifier
) -> np.ndarray:
    """Counts matched events of the right material, and all matched ones, for every clip."""
    counts = []
    for clip, waveform in zip(clips, heard, strict=True):
        matched = onsets.match(waveform.onsets_s, clip.times_s, scores.TOLERANCES_S[0])
        spectra = [strike_spectrum(waveform.mel_FT, waveform.onsets_s[i]) for i, _ in matched]
        told = classify(np.stack(spectra)) if spectra else []
        right = sum(a == clip.materials[j] for a, (_, j) in zip(told, matched))
        counts.append((right, len(matched)))
    return np.array(counts, np.int64).reshape(-1, 2)
