"""Protocol `onsets`: are a system's onsets where those of the true sound are? Needs no weights.

For any folder of sounds (or videos with sound): item NAME is judged against NAME of the reference.
One fixed detector (`onsets.Detector`) hears both at 16 kHz; only onsets within the reference's
length count. Items that are missing or cannot be read are listed and not scored; silent ones are
listed and scored. The reference against itself, and the same sounds paired with other items,
stand beside every result.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from foley_jax.evaluation import embedded, onset_scores, onsets, run_card, scores, seeds

NAME = "onsets"
REFERENCE = "reference"
RATE_HZ = embedded.AUDIO.sample_rate_hz
DETECTOR = onsets.Detector()
# the whole curve of precision over recall needs weak peaks too
SENSITIVE = dataclasses.replace(DETECTOR, threshold=0.005)
COLUMNS = {
    "F1 @100 ms": "f1@100ms",
    "95 % interval": None,
    "shuffled": "shuffled_f1@100ms",
    "F1 @150 ms": "f1@150ms",
    "precision": "precision",
    "recall": "recall",
    "onset AP": "onset_ap",
    "count acc": "count_accuracy",
}
MORE_COLUMNS = {"seeds": "seeds", "F1 spread": "f1@100ms_std"}


@dataclasses.dataclass(frozen=True)
class Heard:
    """Onsets of one sound: those of the detector, and all peaks with their confidence."""

    onsets_s: np.ndarray
    peaks: onset_scores.Detections
    length_s: float

    def until(self, end_s: float) -> "Heard":
        """Without what comes later than `end_s`."""
        kept = self.peaks.times_s <= end_s
        peaks = onset_scores.Detections(self.peaks.times_s[kept], self.peaks.confidence[kept])
        return Heard(self.onsets_s[self.onsets_s <= end_s], peaks, min(self.length_s, end_s))


@dataclasses.dataclass(frozen=True)
class Result:
    """Of one protocol on all systems.

    Attributes:
      figures: system -> figures, the reference first.
      samples: one row per system, run and item, for `tables.write_per_sample`.
      systems: system -> entries of the run card, one per run.
      complaints: what is missing, unreadable or silent, a line per run.
    """

    figures: dict[str, dict[str, float]]
    samples: list[dict[str, Any]]
    systems: dict[str, list[dict[str, Any]]]
    complaints: list[str]


def listen(audio_L: np.ndarray) -> Heard:
    """Onsets of a sound, float [L] at `RATE_HZ`; none if it is shorter than a window."""
    length_s = len(audio_L) / RATE_HZ
    if len(audio_L) < embedded.AUDIO.n_fft:
        return Heard(np.zeros(0), onset_scores.Detections(np.zeros(0), np.zeros(0)), length_s)
    heard = embedded.hear(audio_L, DETECTOR)
    peaks = onset_scores.Detections(*SENSITIVE.peaks(heard.mel_FT, embedded.AUDIO.frame_s))
    return Heard(heard.onsets_s, peaks, length_s)


def listen_all(
    names: Sequence[str], folder: Path, what: str
) -> tuple[dict[str, Heard], run_card.Account]:
    """Listens to what there is of the named sounds."""
    sounds, account = run_card.read_sounds(names, folder, RATE_HZ)
    items = tqdm.tqdm(sounds.items(), desc=what, unit="clip", leave=False)
    return {name: listen(audio_L) for name, audio_L in items}, account


def figures(heard: Mapping[str, Heard], reference: Mapping[str, Heard]) -> dict[str, float]:
    """Figures over the items of `heard`.

    Returns:
      Those of `scores.figures`, `onset_ap` and `count_accuracy`.
    Raises:
      ValueError: no items.
    """
    if not heard:
        raise ValueError("nothing to score: no requested sound could be read")
    cut = [sound.until(reference[name].length_s) for name, sound in heard.items()]
    true_s = [reference[name].onsets_s for name in heard]
    found = scores.figures([sound.onsets_s for sound in cut], true_s)
    found["onset_ap"] = onset_scores.average_precision([sound.peaks for sound in cut], true_s)
    found["count_accuracy"] = onset_scores.count_accuracy([s.onsets_s for s in cut], true_s)
    return found


def sample_rows(
    system: str,
    run: int,
    heard: Mapping[str, Heard],
    account: run_card.Account,
    reference: Mapping[str, Heard],
) -> list[dict[str, Any]]:
    """A row per requested item, also of those that could not be scored."""
    rows = []
    for name in account.requested:
        row = {"system": system, "run": run, "name": name, "status": _status(name, account)}
        if name in heard:
            detected = heard[name].until(reference[name].length_s).onsets_s
            counts = onsets.count(detected, reference[name].onsets_s, scores.TOLERANCES_S[0])
            row |= {"true": counts.true, "heard": counts.detected, "matched": counts.matched}
            row["f1@100ms"] = counts.f1
        rows.append(row)
    return rows


def _status(name: str, account: run_card.Account) -> str:
    """What became of an item, in one word."""
    for status in ("missing", "unreadable", "silent"):
        if name in getattr(account, status):
            return status
    return "scored"


def evaluate(
    systems: Mapping[str, Sequence[Path]],
    reference: Path,
    checkpoints: Mapping[str, Path] | None = None,
) -> Result:
    """Judges every run (folder) of every system, and the reference against itself.

    Args:
      systems: name -> a folder per seed.
      reference: folder of the true sounds or videos; its stems are what is asked for.
      checkpoints: name -> weights to hash for the run card.
    Raises:
      FileNotFoundError: a folder without sounds.
      ValueError: a system of which nothing can be scored, or named like the reference.
    """
    if REFERENCE in systems:
        raise ValueError(f"a system is named {REFERENCE!r}; give it another name")
    checkpoints = checkpoints or {}
    asked = tuple(run_card.find_sounds(reference))
    true, true_account = listen_all(asked, reference, REFERENCE)
    result = Result({}, [], {}, [])
    for name, folders in {REFERENCE: (reference,), **systems}.items():
        runs, entries = [], []
        for run, folder in enumerate(folders):
            if name == REFERENCE:
                heard, account = true, true_account
            else:
                heard, account = listen_all(true_account.scored, folder, name)
            runs.append({**figures(heard, true), **seeds.mean_scores(folder, account.scored)})
            entries.append(run_card.of_system(folder, account, checkpoints.get(name)))
            result.samples.extend(sample_rows(name, run, heard, account, true))
            if complaint := account.complaint():
                result.complaints.append(f"{name}, {folder.name}: {complaint}")
        result.figures[name] = seeds.merge(runs)
        result.systems[name] = entries
    return result


def settings() -> dict[str, Any]:
    """Everything the figures depend on beside the sounds."""
    return {
        "detector": dataclasses.asdict(DETECTOR),
        "ap_threshold": SENSITIVE.threshold,
        "tolerances_s": scores.TOLERANCES_S,
        "sample_rate_hz": RATE_HZ,
        "num_pairings": scores.NUM_PAIRINGS,
        "num_bootstrap": scores.NUM_BOOTSTRAP,
    }
