"""Several runs of one system (other seeds) as one row: the mean and its spread.

--system=generated=out/seed0 --system=generated=out/seed1 --system=generated=out/seed2
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foley_jax.evaluation import alignment, run_card
from foley_jax.evaluation.statistics import remarks

_OWN_FIGURE = (
    "is the generator's own: without wrong pairs nobody knows whether it tells pairs apart"
)


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


def refuse(systems: Iterable[str], reserved: Iterable[str]) -> None:
    """Refuses systems that would share a row of the table with something else.

    Raises:
      ValueError: a system has one of the reserved names.
    """
    if taken := sorted(set(reserved) & set(systems)):
        raise ValueError(f"a system is named {taken[0]!r}; give it another name")


def mean_scores(folder: Path | None, names: Sequence[str]) -> dict[str, float]:
    """Means over clips of what the generator itself wrote into `scores.json`, if it did.

    Args:
      folder: of the generator's audio clips; None for true audio, which has no generator.
    Returns:
      `align_acc`, the share of clips whose alignment probability rounds to 1 (0.5 rounds to 0),
      and `cavp_similarity`; a figure that a clip lacks is left out. Both say that no wrong pairs
      stand beside them: nobody has written those down.
    """
    clips = {} if folder is None else run_card.generator_clips(folder)
    found = {}
    for key, name, figure in (
        ("align_acc", "alignment", alignment.accuracy),
        ("cavp_similarity", "cavp_similarity", np.mean),
    ):
        values = [_number(clips.get(clip, {}).get(name)) for clip in names]
        if values and None not in values:
            found[key] = remarks.Remarked(float(figure(np.array(values))), _OWN_FIGURE)
    return found


def _number(value: Any) -> float | None:
    """A finite number; None where anything else stands."""
    is_number = isinstance(value, (int, float)) and not remarks.is_absent(value)
    return float(value) if is_number else None


def merge(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One system's figures over its runs.

    Returns:
      Every figure's mean (of those that all runs have, `remarks.mean`); `seeds`, their number; and
      with two or more every figure's `_std`, the standard deviation over runs (n - 1). The
      bootstrap interval over clips becomes the mean of the runs' intervals: it speaks about clips,
      the deviation about seeds.
    """
    common = [name for name in runs[0] if all(name in run for run in runs)]
    merged = {name: remarks.mean([run[name] for run in runs]) for name in common}
    merged["seeds"] = len(runs)
    if len(runs) > 1:
        for name in common:
            mean, values = merged[name], [run[name] for run in runs]
            lacking = remarks.is_absent(mean)
            merged[f"{name}_std"] = mean if lacking else float(np.std(values, ddof=1))
    return merged
