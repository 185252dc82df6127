"""Krippendorff's alpha: how far listeners agree beyond chance, whoever answered what."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from foley_jax.evaluation.statistics import remarks

Scale = Literal["nominal", "interval"]
_DISTANCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nominal": lambda gap: (gap != 0).astype(np.float64),
    "interval": lambda gap: gap * gap,
}


def krippendorff(units: Mapping[str, Sequence[float]], scale: Scale) -> float:
    """Returns 1 - observed disagreement / disagreement expected by chance.

    1 is perfect agreement, 0 that of answers dealt out at random, below 0 less than that. Answers
    may be missing; a unit with a single one says nothing and is left out.

    Args:
      units: question -> all answers to it as numbers.
      scale: "nominal" counts different answers, "interval" squares their difference.
    Returns:
      Alpha, at most 1; absent (`remarks`) if no unit has two answers, or all answers are equal.
    Source: Krippendorff, Computing Krippendorff's alpha-reliability, 2011.
    """
    distance = _DISTANCES[scale]
    several = [np.asarray(values, np.float64) for values in units.values() if len(values) > 1]
    if not several:
        return remarks.absent("no question has two answers; agreement needs one that has")
    observed = sum(_sum(values, distance) / (len(values) - 1) for values in several)
    every = np.concatenate(several)
    expected = _sum(every, distance) / (len(every) - 1)
    if expected == 0:
        return remarks.absent("all answers are the same; agreement beyond chance is not defined")
    return float(1.0 - observed / expected)


def _sum(values: np.ndarray, distance: Callable[[np.ndarray], np.ndarray]) -> float:
    """Distances between all ordered pairs, through the counts of the few values there are."""
    levels, counts = np.unique(values, return_counts=True)
    return float(counts @ distance(levels[:, None] - levels[None]) @ counts)
