"""Which items of a system a person looks at first: the worst, the best, those without a figure."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import numbers
from typing import Any

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Ranked:
    """Rows of one system; no row is in two of these.

    Attributes:
      worst: worst first.
      best: best first.
      without: rows that have no number, in the order they came.
    """

    worst: list[Row]
    best: list[Row]
    without: list[Row]


def number_of(row: Row, key: str) -> float | None:
    """The figure of a row; None if it has none, or one that is not a number."""
    value = row.get(key)
    if not isinstance(value, numbers.Real) or math.isnan(value):
        return None
    return float(value)


def rank(rows: Sequence[Row], key: str, ascending: bool, count: int) -> Ranked:
    """Picks the extremes of a figure; equal figures keep the order of the rows.

    Args:
      rows: of `protocol.Result.samples`, one system.
      key: the figure.
      ascending: whether a larger figure is better.
      count: most rows at either end. Of fewer than 2 * count rows, the worse half (and the middle
        one) are the worst.
    Raises:
      ValueError: a count that is not positive.
    """
    if count < 1:
        raise ValueError(f"count is {count}, expected at least 1 row at either end")
    known = [row for row in rows if number_of(row, key) is not None]
    sign = 1.0 if ascending else -1.0
    known.sort(key=lambda row: sign * number_of(row, key))
    num_worst = min(count, -(-len(known) // 2))
    num_best = min(count, len(known) - num_worst)
    return Ranked(
        worst=known[:num_worst],
        best=known[len(known) - num_best :][::-1],
        without=[row for row in rows if number_of(row, key) is None],
    )
