"""Several runs of one system (other seeds) as one row: the mean and its spread.

--system=generated=out/seed0 --system=generated=out/seed1 --system=generated=out/seed2
"""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path

import numpy as np

from foley_jax.evaluation import alignment


def parse(items: Sequence[str], default: str = "") -> dict[str, list[Path]]:
    """`NAME=DIR` items to folders by name; a repeated name collects the runs of one system.

    Args:
      default: name of an item that is a folder alone, such as one called cfg=4.5.
    Raises:
      ValueError: an item without "=", and no default.
    """
    systems: dict[str, list[Path]] = {}
    for item in items:
        name, equals, folder = item.partition("=")
        if default and (not equals or Path(item).exists()):
            name, equals, folder = default, "=", item
        if not equals or not name or not folder:
            raise ValueError(f"--system is {item!r}, expected NAME=DIR")
        systems.setdefault(name, []).append(Path(folder))
    return systems


def mean_scores(folder: Path | None, names: Sequence[str]) -> dict[str, float]:
    """Means over clips of what the generator itself wrote into `scores.json`, if it did.

    Args:
      folder: of the generator's sounds; None for true sound, which has no generator.
    Returns:
      `align_acc`, the share of clips whose alignment probability rounds to 1 (0.5 rounds to 0),
      and `cavp_similarity`; a figure that a clip lacks is left out.
    """
    if folder is None or not (folder / "scores.json").exists():
        return {}
    clips = json.loads((folder / "scores.json").read_text()).get("clips", {})
    found = {}
    match = [clips.get(name, {}).get("alignment") for name in names]
    if match and None not in match:
        found["align_acc"] = alignment.accuracy(np.array(match))
    similarity = [clips.get(name, {}).get("cavp_similarity") for name in names]
    if similarity and None not in similarity:
        found["cavp_similarity"] = float(np.mean(similarity))
    return found


def merge(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One system's figures over its runs.

    Returns:
      Every figure's mean (of those that all runs have); `seeds`, their number; and with two or
      more every figure's `_std`, the standard deviation over runs (n - 1). The bootstrap interval
      over clips becomes the mean of the runs' intervals: it speaks about clips, the deviation
      about seeds.
    """
    common = [name for name in runs[0] if all(name in run for run in runs)]
    merged = {name: float(np.mean([run[name] for run in runs])) for name in common}
    merged["seeds"] = len(runs)
    if len(runs) > 1:
        for name in common:
            merged[f"{name}_std"] = float(np.std([run[name] for run in runs], ddof=1))
    return merged
