"""Protocol `embedded`: does the sound follow the picture, where the true events are known.

    python -m foley_jax.evaluation.embedded --truth=demo/videos/test --train=demo/videos/train \\
        --system=generated=demo/out/generated --out=demo/report

Every system is a folder of `NAME.wav`, one for each `NAME.mp4` + `NAME.json` of the truth; give
a system's name again for its other seeds: their mean and spread make one row.
Onsets are found in the log-mel of the wav by one fixed detector and matched one-to-one with the
true events. The same sounds paired with other videos, and the true sounds, stand beside every
result: a score means something only between these two. Clips without struck events (continuous
sources alone) count where the detector hears onsets in them: as false alarms.

Axis letters: F mel bins, T mel frames.
"""

import argparse
from collections.abc import Mapping, Sequence
import dataclasses
import json
from pathlib import Path
import sys

import numpy as np
import tqdm

from foley_jax.evaluation import onsets, report, scores, seeds
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
    """What the detector hears in one sound."""

    mel_FT: np.ndarray
    onsets_s: np.ndarray


def read_truth(folder: Path) -> list[Truth]:
    """All clips of a folder of embedded scenes, by name.

    Raises:
      FileNotFoundError: the folder holds no truth files.
    """
    clips = []
    for path in sorted(folder.glob("*.json")):
        scene = json.loads(path.read_text())
        events = sorted(scene["events"], key=lambda e: e["time_s"])
        clips.append(
            Truth(
                name=path.stem,
                video=path.with_suffix(".mp4"),
                level=scene["level"],
                times_s=np.array([e["time_s"] for e in events], np.float64),
                materials=tuple(e["material"] for e in events),
            )
        )
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
    """Ridge regression from strike spectra to materials, fitted on true sounds."""

    def __init__(self, spectra_NF: np.ndarray, materials: Sequence[str], ridge: float = 1e-2):
        self.names = sorted(set(materials))
        target = np.array([[m == n for n in self.names] for m in materials], np.float64)
        x = _with_bias(spectra_NF)
        gram = x.T @ x + ridge * len(x) * np.eye(x.shape[1])
        self.weights = np.linalg.solve(gram, x.T @ target)

    def __call__(self, spectra_NF: np.ndarray) -> list[str]:
        return [self.names[i] for i in (_with_bias(spectra_NF) @ self.weights).argmax(1)]

    @classmethod
    def fit(cls, clips: Sequence[Truth], heard: Mapping[str, Heard]) -> "MaterialClassifier":
        spectra = [strike_spectrum(heard[c.name].mel_FT, t) for c in clips for t in c.times_s]
        return cls(np.stack(spectra), [m for c in clips for m in c.materials])


def _with_bias(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def score(
    clips: Sequence[Truth], heard: Mapping[str, Heard], classify: MaterialClassifier
) -> dict[str, float]:
    """All figures of one system over one set of clips.

    Returns:
      Those of `scores.figures`, and the material accuracy over matched events.
    """
    result = scores.figures([heard[c.name].onsets_s for c in clips], [c.times_s for c in clips])
    result["material_accuracy"] = material_accuracy(clips, heard, classify)
    return result


def material_accuracy(
    clips: Sequence[Truth], heard: Mapping[str, Heard], classify: MaterialClassifier
) -> float:
    """Share of matched events whose sound is of the right material; nan without a match."""
    spectra, materials = [], []
    for clip in clips:
        sound = heard[clip.name]
        for i, j in onsets.match(sound.onsets_s, clip.times_s, scores.TOLERANCES_S[0]):
            spectra.append(strike_spectrum(sound.mel_FT, sound.onsets_s[i]))
            materials.append(clip.materials[j])
    if not spectra:
        return float("nan")
    return float(np.mean([a == b for a, b in zip(classify(np.stack(spectra)), materials)]))


def hear_all(clips: Sequence[Truth], folder: Path | None, what: str) -> dict[str, Heard]:
    """Hears every clip of a system; `folder=None` hears the videos' own sound.

    Raises:
      FileNotFoundError: sounds are missing; a score over fewer clips would not be comparable.
    """
    detector, heard = onsets.Detector(), {}
    paths = {c.name: c.video if folder is None else folder / f"{c.name}.wav" for c in clips}
    missing = [str(p) for p in paths.values() if not p.exists()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(paths)} sounds missing: {missing[:3]} ...")
    for name, path in tqdm.tqdm(paths.items(), desc=what, unit="clip", leave=False):
        heard[name] = hear(audio_io.load(path, AUDIO.sample_rate_hz), detector)
    return heard


def evaluate(
    truth: Sequence[Path], train: Path, systems: Mapping[str, Sequence[Path]]
) -> tuple[dict, dict, list]:
    """Scores of the true sounds and every system (a folder per seed), per level of difficulty.

    Returns:
      {level: {system: figures}}, {system: {clip name: Heard}} of the first seeds, and the clips.
    """
    clips = [clip for folder in truth for clip in read_truth(folder)]
    train_clips = read_truth(train)
    # blows of one object at a time: in hard scenes others ring into them
    alone = [c for c in train_clips if c.level != "hard"]
    classify = MaterialClassifier.fit(alone, hear_all(alone, None, "train"))
    levels = sorted({c.level for c in clips}, reverse=True)  # plain before hard
    figures: dict[str, dict] = {level: {} for level in levels}
    first_heard = {}
    for name, folders in {"true sound": (None,), **systems}.items():
        heard = [hear_all(clips, folder, name) for folder in folders]
        first_heard[name] = heard[0]
        for level in levels:
            chosen = [c for c in clips if c.level == level]
            names = [c.name for c in chosen]
            runs = [
                {**score(chosen, sounds, classify), **seeds.mean_scores(folder, names)}
                for folder, sounds in zip(folders, heard)
            ]
            figures[level][name] = seeds.merge(runs)
    return figures, first_heard, clips


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    p = argparse.ArgumentParser(
        prog="python -m foley_jax.evaluation.embedded",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--truth", type=Path, nargs="+", required=True, help="folders of test scenes with JSON"
    )
    p.add_argument("--train", type=Path, required=True, help="training scenes, for materials")
    p.add_argument(
        "--system", action="append", default=[], metavar="NAME=DIR", help="folder of NAME.wav"
    )
    p.add_argument("--out", type=Path, required=True, help="where the report goes")
    args = p.parse_args(argv)
    try:
        systems = seeds.parse(args.system)
        figures, heard, clips = evaluate(args.truth, args.train, systems)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report.write(args.out, figures, heard, clips, {n: d[0] for n, d in systems.items()}, AUDIO)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
