"""Bootstrap intervals: how far a figure would move with other clips of the same kind."""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

NUM_RESAMPLES = 1000
# All resampled items are the worst one with probability N^-N: 1/4, 1/27, 1/256 of 2, 3, 4 items.
# Below 4 that is more than the 2.5 % of a tail, so the "interval" is the range of the items; of a
# single one it is a point, which looks like certainty.
LEAST_ITEMS = 4


@dataclasses.dataclass(frozen=True)
class Interval:
    """A figure and its percentile interval.

    Attributes:
      value: of the items as they are.
      low, high: quantiles of the resampled values.
      level: share of resampled values between them.
    """

    value: float
    low: float
    high: float
    level: float


def interval(
    statistic: Callable[[np.ndarray], float],
    num_items: int,
    *,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a figure over resampled items.

    Repeated items bias distances between sets upwards (a Frechet distance of resampled features
    counts every item's copies): their interval may lie wholly above the value. For means over
    items, and for ratios of sums, it does what one expects.

    Args:
      statistic: figure of a selection, int [num_items] of item numbers, with repetitions.
      num_items: how many there are; at least 1.
      seed: a fixed one, so that a report does not change when made again.
    Raises:
      ValueError: no items, no resamples, or a level outside (0, 1).
    Source: Efron 1979.
    """
    _check((num_items,), num_resamples, level)
    picks = np.random.default_rng(seed).integers(0, num_items, (num_resamples, num_items))
    values = [statistic(pick) for pick in picks]
    return _percentile(statistic(np.arange(num_items)), values, level)


def two_sample_interval(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    num_one: int,
    num_other: int,
    *,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """`interval` of a figure that compares two sets, each resampled by itself.

    Args:
      statistic: figure of a selection of both, int [num_one] and [num_other].
    Raises:
      ValueError: as `interval`, of either set.
    """
    _check((num_one, num_other), num_resamples, level)
    rng = np.random.default_rng(seed)
    values = [
        statistic(rng.integers(0, num_one, num_one), rng.integers(0, num_other, num_other))
        for _ in range(num_resamples)
    ]
    return _percentile(statistic(np.arange(num_one), np.arange(num_other)), values, level)


def mean_interval(values_N: np.ndarray, **settings: float) -> Interval:
    """`interval` of the mean of one figure per item, float [N]."""
    values = np.asarray(values_N, np.float64)
    if values.ndim != 1:
        raise ValueError(f"values of shape {values.shape}, expected one per item")
    return interval(lambda pick: float(values[pick].mean()), len(values), **settings)


def sums_interval(
    rows_NK: np.ndarray, statistic: Callable[[np.ndarray], float], **settings: float
) -> Interval:
    """`interval` of a figure of sums over items: pooled ratios, without a pass for every pick.

    Args:
      rows_NK: what every item adds, float or int [N, K].
      statistic: figure of the sums, float64 [K].
    """
    rows = np.asarray(rows_NK, np.float64)

    def of_pick(pick: np.ndarray) -> float:
        return statistic(np.bincount(pick, minlength=len(rows)) @ rows)

    return interval(of_pick, len(rows), **settings)


def _check(num_items: Sequence[int], num_resamples: int, level: float) -> None:
    if min(*num_items, num_resamples) < 1:
        items = " and ".join(str(count) for count in num_items)
        raise ValueError(f"{items} items, {num_resamples} resamples; expected at least 1")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}, expected 0 < level < 1")


def _percentile(value: float, resampled: Sequence[float], level: float) -> Interval:
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(np.asarray(resampled, np.float64), [tail, 1.0 - tail])
    return Interval(float(value), float(low), float(high), level)
