"""Nearest training items: are samples nearer to the training set than held-out items are?

A generator that has memorised gives items that lie nearer to training items than real items of
the same kind, which it has never seen, do. So every figure stands beside that of held-out items,
and of every training item against the others. float64, on the host, exact.

N queries, M training items, D width of a feature.
"""

from collections.abc import Sequence
import dataclasses
from typing import Literal

import numpy as np

from foley_jax.evaluation.statistics import bootstrap, remarks

Metric = Literal["euclidean", "cosine"]
Units = Literal["one", "each"]
METRICS: tuple[Metric, ...] = ("euclidean", "cosine")
UNITS: tuple[Units, ...] = ("one", "each")
QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
NEAR_QUANTILE = 0.05  # of the held-out distances; what is nearer is counted
LEAST_HELD_OUT = 20  # of fewer, less than one lies below that quantile
SPREAD_FLOOR = 0.1  # of the root mean square spread: what hardly varies must not weigh most
BLOCK_ROWS = 256  # queries held against all training items at once
# the nearest and the second nearest; -1 and nan where there is none
_FOUND = np.dtype([("index", np.int64, 2), ("distance", np.float64, 2)])


@dataclasses.dataclass(frozen=True)
class Standard:
    """Shift and scale that give the training set mean 0 and spread 1.

    Attributes:
      mean_D: float64 [D].
      scale_D: float64 [D]. Of one unit: the root mean square over dimensions of the standard
        deviation, in all of them. Of unlike units: each dimension's own, but at least
        `SPREAD_FLOOR` of that. 1 where nothing varies at all (a single item, or equal ones).
    """

    mean_D: np.ndarray
    scale_D: np.ndarray

    @classmethod
    def of(cls, training_MD: np.ndarray, units: Units = "each") -> "Standard":
        """Args:
          training_MD: float [M, D], finite, M >= 1.
          units: "one" if all dimensions have the same (decibels, pixel values), or "each".
            Scales of its own make the training set look dense to itself: with M not much larger
            than D, items of the same kind from elsewhere lie farther off than training items
            from each other. One scale does not.
        Raises:
          ValueError: another shape, no items, values that are not finite, or unknown units.
        """
        if units not in UNITS:
            raise ValueError(f"units are {units!r}, expected one of {', '.join(UNITS)}")
        x = _checked("training", training_MD)
        spread = x.std(axis=0)
        whole = float(np.sqrt(np.mean(spread**2)))
        scale = np.maximum(spread, SPREAD_FLOOR * whole) if units == "each" else whole
        return cls(x.mean(axis=0), np.full_like(spread, scale if whole > 0 else 1.0))

    def __call__(self, features_ND: np.ndarray) -> np.ndarray:
        """Standardised features, float64 [N, D]."""
        x = _checked("features", features_ND)
        if x.shape[1] != len(self.mean_D):
            raise ValueError(
                f"features are {x.shape[1]} wide, those of the training set {len(self.mean_D)}"
            )
        return (x - self.mean_D) / self.scale_D


@dataclasses.dataclass(frozen=True)
class Nearest:
    """Findings for every query.

    Attributes:
      index_N: int, the nearest training item, the first of equally near ones; -1 without any.
      distance_N: float64, to it; nan without any.
      second_index_N, second_N: likewise of the nearest item of another group than that one's.
      own_N: float64, from the nearest training item to the nearest training item of another
        group; nan where the training set has one group.
    """

    index_N: np.ndarray
    distance_N: np.ndarray
    second_index_N: np.ndarray
    second_N: np.ndarray
    own_N: np.ndarray

    @property
    def ratio_N(self) -> np.ndarray:
        """distance_N / own_N, float64 [N]: below 1, the query is nearer than any training item.

        A copy has 0, also of an item that is twice in the training set (0 / 0). nan if unknown.
        Source: the rule of authenticity, Alaa et al. 2022 section 4.3: a sample is authentic
        where this is above 1. (Their published code looks the training distance up by the
        sample's number; this follows the text.)
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio_N = self.distance_N / self.own_N
        return np.where(self.distance_N == 0, 0.0 * self.own_N, ratio_N)


class Training:
    """The training set, ready to be searched."""

    def __init__(
        self,
        features_MD: np.ndarray,
        groups_M: Sequence[int] | None = None,
        *,
        metric: Metric = "euclidean",
        units: Units = "each",
    ):
        """Args:
          features_MD: float [M, D], finite; held in float64.
          groups_M: items that belong together (cuts of one file): an item's own nearest is
            looked for, and the second nearest counted, outside the group; default: each its own.
          metric: "euclidean", or "cosine" (1 - cosine, in [0, 2]; an item at the training mean
            has no direction and is at 1 from all others), both of standardised features.
          units: as `Standard.of` takes it.
        Raises:
          ValueError: as `Standard.of`, groups of another number, or an unknown metric.
        """
        if metric not in METRICS:
            raise ValueError(f"metric is {metric!r}, expected one of {', '.join(METRICS)}")
        self.metric: Metric = metric
        self.standard = Standard.of(features_MD, units)
        self._points_MD = self._place(features_MD)
        self._norms_M = (self._points_MD**2).sum(axis=1)
        count = len(self._points_MD)
        self._groups_M = np.arange(count) if groups_M is None else np.asarray(groups_M)
        if self._groups_M.shape != (count,):
            raise ValueError(f"groups of shape {self._groups_M.shape}, expected one of {count}")
        self._among_M = self._search(self._points_MD, self._groups_M)

    def nearest(self, features_ND: np.ndarray) -> Nearest:
        """The nearest training item of every query.

        Args:
          features_ND: float [N, D], finite.
        Raises:
          ValueError: another width, or values that are not finite.
        """
        return self._answer(self._search(self._place(features_ND), None))

    def leave_one_out(self) -> Nearest:
        """The nearest item of another group for every training item, [M].

        `own_N` is nan here: the nearest of an item's nearest may be the item itself. Mutual
        neighbours count twice, so intervals of these distances are a little narrow.
        """
        found = self._answer(self._among_M)
        return dataclasses.replace(found, own_N=np.full(len(found.own_N), np.nan))

    def _answer(self, found: np.ndarray) -> Nearest:
        index, second_index = found["index"].T
        own = np.where(index < 0, np.nan, self._among_M["distance"][index, 0])
        distance, second = found["distance"].T
        if self.metric == "cosine":  # |u - v|^2 / 2 = 1 - cos, without its cancellation
            distance, second, own = (d**2 / 2 for d in (distance, second, own))
        return Nearest(index, distance, second_index, second, own)

    def _place(self, features_ND: np.ndarray) -> np.ndarray:
        """Points whose Euclidean distance orders as the metric does."""
        x = self.standard(features_ND)
        if self.metric == "euclidean":
            return x
        length = np.linalg.norm(x, axis=1, keepdims=True)
        lost = length == 0  # no direction: one of its own, at a right angle to all others
        return np.concatenate([x / np.where(lost, 1.0, length), lost], axis=1)

    def _search(self, points_ND: np.ndarray, groups_N: np.ndarray | None) -> np.ndarray:
        """`_FOUND` [N] of the points; never within the point's group."""
        found = np.zeros(len(points_ND), _FOUND)
        for start in range(0, len(points_ND), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            x = points_ND[rows]
            norms = (x**2).sum(axis=1)[:, None]
            rough = norms + self._norms_M - 2.0 * (x @ self._points_MD.T)  # [rows, M]
            if groups_N is not None:
                rough[groups_N[rows, None] == self._groups_M] = np.inf
            # what rounding may have moved by this much is measured again, without cancellation
            slack = 4 * (x.shape[1] + 4) * np.finfo(np.float64).eps * (norms + self._norms_M.max())
            best = self._groups_M[rough.argmin(axis=1)][:, None] == self._groups_M
            limit = np.where(best, np.inf, rough).min(axis=1, keepdims=True)
            limit = np.where(np.isinf(limit), rough.min(axis=1, keepdims=True), limit) + slack
            for i, near in enumerate((rough <= limit) & np.isfinite(rough)):
                found[start + i] = self._measure(x[i], np.flatnonzero(near))
        return found

    def _measure(self, x_D: np.ndarray, candidates: np.ndarray) -> tuple:
        """`_FOUND` of one point, exactly, among candidates."""
        distance = np.sqrt(((self._points_MD[candidates] - x_D) ** 2).sum(axis=1))
        nearest = [(-1, np.nan), (-1, np.nan)]
        for place in range(2):
            if len(distance):
                first = int(distance.argmin())
                nearest[place] = int(candidates[first]), float(distance[first])
                groups = self._groups_M[candidates]
                kept = groups != groups[first]
                candidates, distance = candidates[kept], distance[kept]
        return tuple(zip(*nearest, strict=True))


def auc(one_N: np.ndarray, other_M: np.ndarray) -> float:
    """Probability that a value of `one` is smaller than one of `other`; ties count one half.

    0.5 where both are drawn alike; 1 where all of `one` are smaller.

    Args:
      one_N, other_M: float, at least one each.
    Source: Mann & Whitney 1947.
    """
    other = np.sort(other_M)
    smaller = len(other) - np.searchsorted(other, one_N, side="right")
    equal = len(other) - np.searchsorted(other, one_N, side="left") - smaller
    return float((smaller + 0.5 * equal).mean() / len(other))


def figures(found: Nearest, held_out: Nearest | None = None) -> dict[str, float]:
    """Figures of a set of items, beside held-out ones.

    Args:
      found: of the set.
      held_out: of real items the generator never saw; None gives the figures without them.
    Returns:
      `clips`; quantiles `q05` ... `q95` of the distance to the nearest training item;
      `ratio`, the median of `Nearest.ratio_N`, and `authentic`, the share above 1: for items drawn
      like the training set 1/3 in one dimension, rising to 1/2 in many, near 0 for copies; read
      it beside the held-out row, for real data are not homogeneous. Left out where unknown.
      Beside held-out items also `nearer`, the share nearer than their 5 % quantile (healthy: 0.05;
      copies: 1), and `auc`, the probability that an item is nearer than a held-out one
      (healthy: 0.5; copies: 1; below 0.5: the items are unlike the training set), with its 95 %
      bootstrap interval over items, `auc_low` and `auc_high`, which needs
      `bootstrap.LEAST_ITEMS` of both.
    Raises:
      ValueError: no items.
    """
    distance = found.distance_N
    if not len(distance) or (held_out is not None and not len(held_out.distance_N)):
        raise ValueError("no items to give figures of, expected at least one in each set")
    result: dict[str, float] = {"clips": len(distance)}
    for name, level in QUANTILES.items():
        result[name] = float(np.quantile(distance, level))
    known = found.ratio_N[~np.isnan(found.ratio_N)]
    if len(known):
        result["ratio"], result["authentic"] = float(np.median(known)), float((known > 1).mean())
    if held_out is None:
        return result
    beside = held_out.distance_N
    result["nearer"] = float((distance < near_limit(held_out)).mean())
    if len(beside) < LEAST_HELD_OUT:
        detail = f"{len(beside)} held-out clips, a 5 % quantile needs {LEAST_HELD_OUT}"
        result["nearer"] = remarks.Remarked(result["nearer"], f"is of few items: {detail}")
    between = bootstrap.two_sample_interval(
        lambda one, other: auc(distance[one], beside[other]), len(distance), len(beside)
    )
    least = min(len(distance), len(beside))
    few = remarks.too_few(least, "clip", f"a 95 % interval needs {bootstrap.LEAST_ITEMS} of each")
    enough = least >= bootstrap.LEAST_ITEMS
    ends = (between.low, between.high) if enough else (few, few)
    return {**result, "auc": between.value, "auc_low": ends[0], "auc_high": ends[1]}


def near_limit(held_out: Nearest) -> float:
    """The distance below which an item counts as near: a quantile of the held-out ones'."""
    return float(np.quantile(held_out.distance_N, NEAR_QUANTILE))


def _checked(name: str, features_ND: np.ndarray) -> np.ndarray:
    x = np.asarray(features_ND, np.float64)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"{name} has shape {x.shape}, expected [items, width], none of them 0")
    if not np.isfinite(x).all():
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        raise ValueError(f"{name} has values that are not finite in items {bad[:5].tolist()}")
    return x
