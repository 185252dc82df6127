"""Bradley-Terry strengths: one scale for systems that were compared in pairs.

System i is preferred to j with probability 1 / (1 + exp(s_j - s_i)).

Axis letters: S systems.
"""

import numpy as np

PRIOR_WINS = 0.1  # of either side of a compared pair: who wins always stays finite
TOLERANCE, MOST_STEPS, LONGEST_STEP = 1e-9, 200, 2.0


def are_connected(wins_SS: np.ndarray) -> bool:
    """Whether comparisons lead from every system to every other, over whatever others."""
    one_step_SS = (wins_SS + wins_SS.T > 0) | np.eye(len(wins_SS), dtype=bool)
    reached_S = one_step_SS[0]
    for _ in range(len(wins_SS)):
        reached_S = one_step_SS[reached_S].any(0)
    return bool(reached_S.all())


def strengths(wins_SS: np.ndarray, compared_SS: np.ndarray | None = None) -> np.ndarray:
    """Fits the strengths, by Newton's method, to how often each system was preferred to each other.

    Maximises the likelihood with `PRIOR_WINS` more wins of either side of every compared pair.

    Args:
      wins_SS: [S, S], how often row was preferred to column; not below 0.
      compared_SS: bool [S, S], the pairs that get the prior; default those with a comparison.
        Resampled answers take those of all answers.
    Returns:
      float64 [S] with mean 0; a difference of 1 is odds of e to 1.
    Raises:
      ValueError: not a square table of counts, or systems that no comparisons connect.
    Source: Bradley and Terry 1952.
    """
    wins_SS = np.asarray(wins_SS, np.float64)
    if wins_SS.ndim != 2 or len(wins_SS) != wins_SS.shape[1] or (wins_SS < 0).any():
        raise ValueError(f"wins of shape {list(wins_SS.shape)}, expected counts [S, S]")
    if compared_SS is None:
        compared_SS = wins_SS + wins_SS.T > 0
    wins_SS = wins_SS + PRIOR_WINS * np.asarray(compared_SS)
    np.fill_diagonal(wins_SS, 0.0)
    if not are_connected(wins_SS):
        raise ValueError("some systems were never compared with the others, not even by way of one")
    games_SS = wins_SS + wins_SS.T
    won_S, found_S = wins_SS.sum(1), np.zeros(len(wins_SS))
    for _ in range(MOST_STEPS):
        share_SS = 1.0 / (1.0 + np.exp(found_S[None] - found_S[:, None]))
        slope_S = won_S - (games_SS * share_SS).sum(1)
        weight_SS = games_SS * share_SS * (1.0 - share_SS)
        # adding one number to all strengths changes nothing: the ones fix it
        curve_SS = np.diag(weight_SS.sum(1)) - weight_SS + 1.0
        step_S = np.linalg.solve(curve_SS, slope_S)
        largest = np.abs(step_S).max()
        found_S += step_S * min(1.0, LONGEST_STEP / max(largest, TOLERANCE))
        if largest < TOLERANCE:
            break
    return found_S - found_S.mean()
