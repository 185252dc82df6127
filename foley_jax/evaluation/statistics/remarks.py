"""Figures with a word beside them: why there is none, or what is to be known of one.

A figure that cannot be computed is nan and says why; so it goes through all sums as what it is,
and every table can put a dash in its place and the reason below.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

UNKNOWN = "it has no value here"  # of a nan or an infinity about which nobody said anything


class Remarked(float):
    """A float with a remark.

    Attributes:
      remark: why the figure is nan; of a number, what is to be known of it, "WHAT: DETAIL".
    """

    remark: str

    def __new__(cls, value: float, remark: str) -> "Remarked":
        found = super().__new__(cls, value)
        found.remark = remark
        return found

    def __getnewargs__(self) -> tuple[float, str]:  # it is copied with its remark
        return float(self), self.remark


def absent(why: str) -> Remarked:
    """A figure that cannot be computed: nan, and why."""
    return Remarked(math.nan, why)


def is_absent(value: float) -> bool:
    """Whether a figure is no number that can be shown: nan or infinite."""
    return not math.isfinite(value)


def remark_of(value: float) -> str:
    """Returns what is said of a figure: why it is absent, or what is to be known of it.

    "" is nothing.
    """
    said = getattr(value, "remark", "")
    return said or (UNKNOWN if is_absent(value) else "")


def too_few(count: int, what: str, need: str) -> Remarked:
    """An absent figure: "1 clip; wrong pairs need 2".

    Args:
      what: one of the things that are too few.
      need: what needs how many.
    """
    return absent(f"{count} {what}{'' if count == 1 else 's'}; {need}")


def mean(values: Sequence[float]) -> float:
    """The mean of one figure over runs, with what was said of it in any of them.

    A run without it leaves none: the mean of the others would be of other items.
    """
    lacking = [value for value in values if is_absent(value)]
    if lacking:
        where = "" if len(lacking) == len(values) else f" ({len(lacking)} of {len(values)} runs)"
        return absent(remark_of(lacking[0]) + where)
    said = [remark for value in values if (remark := remark_of(value))]
    found = math.fsum(values) / len(values)
    return Remarked(found, said[0]) if said else found


def plain(node: Any) -> Any:
    """Returns a tree as JSON has it: what is nan or infinite becomes None, wherever it stands."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [plain(value) for value in node]
    return None if isinstance(node, float) and is_absent(node) else node
