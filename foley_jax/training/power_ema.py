"""Moving averages of weights whose length is chosen after training.

Two averages with power-law profiles are kept during training; from snapshots of both, the average
of any other length is a weighted sum. Lengths are `sigma_rel`, the width of the profile as a share
of the training.
Source: Karras et al. 2023 (EDM2), section 3, appendix C; nitrous-ema 0.0.1's step correction.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

SIGMAS = (0.05, 0.1)  # kept by MMAudio


def gamma_of(sigma_rel: float) -> float:
    """Returns the exponent of a profile: 16.97 for 0.05, 6.94 for 0.1.

    Raises:
      ValueError: not between 0 and 0.28, where there is a profile.
    """
    if not 0 < sigma_rel < 0.28:
        raise ValueError(f"sigma_rel is {sigma_rel}, expected above 0 and below 0.28")
    square = sigma_rel**-2
    roots = np.roots([1.0, 7.0, 16.0 - square, 12.0 - square])
    return float(roots[np.isreal(roots)].real.max())


def beta(update: int, gamma: float, every: int = 1) -> float:
    """Returns the share of the old average that an update keeps.

    Args:
      update: 1, 2, ...: how often the average was updated, this time included. Before the first
        one it is the weights themselves.
      gamma: see `gamma_of`.
      every: training steps between two updates.
    """
    decay = (1 - 1 / (update + 1)) * (1 - 1 / (update + 1 + every))
    return decay ** ((gamma + 1) / 2 * every)


def updated(average: Any, params: Any, kept: float | jax.Array) -> Any:
    """Returns the next average: average + (1 - kept) (params - average), leaf by leaf."""
    return jax.tree.map(lambda a, p: a + (1 - kept) * (p - a), average, params)


def synthesis_weights(
    times: Sequence[float], gammas: Sequence[float], time: float, gamma: float
) -> np.ndarray:
    """Returns the weights of snapshots in the average that comes nearest to a wanted one.

    Args:
      times: updates after which each snapshot was taken.
      gammas: exponent of each.
      time, gamma: of the wanted average.
    Returns:
      float64, one for each snapshot.
    """
    t, g = np.asarray(times, np.float64), np.asarray(gammas, np.float64)
    matrix = _product(t[:, None], g[:, None], t[None], g[None])
    return np.linalg.solve(matrix, _product(t, g, np.float64(time), np.float64(gamma)))


def synthesised(snapshots: Sequence[Any], weights: np.ndarray) -> Any:
    """Returns the weighted sum of snapshots, summed in float64, in the leaves' own type."""

    def leaf(*parts: np.ndarray) -> np.ndarray:
        total = sum(w * np.asarray(part, np.float64) for w, part in zip(weights, parts))
        return total.astype(np.asarray(parts[0]).dtype)

    return jax.tree.map(leaf, *snapshots)


def _product(ta, ga, tb, gb) -> np.ndarray:
    """The scalar product of two profiles."""
    exponent = np.where(ta < tb, gb, -ga)
    top = (ga + 1) * (gb + 1) * (ta / tb) ** exponent
    return top / ((ga + gb + 1) * np.maximum(ta, tb))
