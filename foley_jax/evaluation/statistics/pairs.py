"""Right pairs beside wrong ones: a figure of pairs, its interval, and what chance gives.

A metric that claims to say whether an audio clip belongs to its video must be better for right
pairs than for wrong ones. So every such figure KEY stands beside its 95 % interval over items
(KEY_low, KEY_high) and its mean over wrong pairings of the same items (shuffled_KEY); where chance
lies in the interval, or is better still, the figure is marked: it does not tell pairs apart here.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses

import numpy as np

from foley_jax.evaluation.statistics import bootstrap, remarks

NUM_PAIRINGS = 16  # wrong pairings that a shuffled figure averages
LEAST_PAIRS = 2  # one item alone cannot be paired wrongly
DOES_NOT_TELL = "does not tell pairs apart here"


@dataclasses.dataclass(frozen=True)
class Contrast:
    """A figure of pairs, and where the others stand that belong to it.

    Attributes:
      key: the figure.
      ascending: whether larger is better.
      low, high, shuffled: figures; "" are KEY_low, KEY_high and shuffled_KEY.
    """

    key: str
    ascending: bool = True
    low: str = ""
    high: str = ""
    shuffled: str = ""

    def __post_init__(self):
        for name, usual in (
            ("low", f"{self.key}_low"),
            ("high", f"{self.key}_high"),
            ("shuffled", f"shuffled_{self.key}"),
        ):
            if not getattr(self, name):
                object.__setattr__(self, name, usual)


def rotations(count: int) -> list[int]:
    """By how many places items are turned against each other so that none meets itself.

    Returns:
      Up to `NUM_PAIRINGS` numbers in [1, count - 1], evenly spread, the same for the same count;
      none for less than `LEAST_PAIRS` items.
    """
    if count < LEAST_PAIRS:
        return []
    return np.unique(np.linspace(1, count - 1, NUM_PAIRINGS).round().astype(int)).tolist()


def figures(
    contrast: Contrast,
    interval: Callable[[], bootstrap.Interval],
    wrong: Sequence[float],
    count: int,
    *,
    what: str = "clip",
) -> dict[str, float]:
    """A figure of pairs, its interval and its value for wrong pairs; each is absent with a reason.

    Args:
      interval: gives the figure with its interval; not asked without items.
      wrong: the figure for every wrong pairing; nan where one gives none.
      count: how many items that can be resampled, and paired wrongly, there are.
      what: one item, in words.
    """
    if not count:
        return dict.fromkeys(_keys(contrast), remarks.absent(f"no {what} that it can be made of"))
    found = interval()
    result = {contrast.key: found.value}
    if count < bootstrap.LEAST_ITEMS:
        few = remarks.too_few(count, what, f"a 95 % interval needs {bootstrap.LEAST_ITEMS}")
        result |= {contrast.low: few, contrast.high: few}
    else:
        result |= {contrast.low: found.low, contrast.high: found.high}
    known = [value for value in wrong if not remarks.is_absent(value)]
    if known:
        result[contrast.shuffled] = float(np.mean(known))
    elif count < LEAST_PAIRS:
        need = f"wrong pairs need {LEAST_PAIRS}"
        result[contrast.shuffled] = remarks.too_few(count, what, need)
    else:
        result[contrast.shuffled] = remarks.absent("no wrong pair gives it")
    return result


def without(contrast: Contrast, why: str) -> dict[str, float]:
    """Returns what `figures` gives where the figure itself cannot be computed."""
    return dict.fromkeys(_keys(contrast), remarks.absent(why))


def of_means(
    contrast: Contrast, values_N: np.ndarray, wrong: Sequence[float], count: int | None = None
) -> dict[str, float]:
    """`figures` of the mean of one value per item, float [N].

    Args:
      count: of the items, where one gives several of the values; None is N.
    """
    count = len(values_N) if count is None else count
    return figures(contrast, lambda: bootstrap.mean_interval(values_N), wrong, count)


def tells_apart(found: Mapping[str, float], contrast: Contrast) -> bool | None:
    """Whether right pairs are better than wrong ones by more than the choice of items moves them.

    Returns:
      True if chance lies on the worse side of the whole interval; None if one of the figures is
      absent.
    """
    names = (contrast.low, contrast.high, contrast.shuffled)
    if any(name not in found or remarks.is_absent(found[name]) for name in names):
        return None
    low, high, shuffled = (found[name] for name in names)
    return shuffled < low if contrast.ascending else shuffled > high


def marked(found: Mapping[str, float], contrasts: Sequence[Contrast]) -> dict[str, float]:
    """The figures, of which those are remarked that do not tell pairs apart."""
    result = dict(found)
    for contrast in contrasts:
        if tells_apart(found, contrast) is False:
            low, high, shuffled = (
                found[name] for name in (contrast.low, contrast.high, contrast.shuffled)
            )
            detail = f"wrong pairs {shuffled:.3f}, right ones {low:.3f} to {high:.3f}"
            remark = f"{DOES_NOT_TELL}: {detail}"
            result[contrast.key] = remarks.Remarked(found[contrast.key], remark)
    return result


def _keys(contrast: Contrast) -> tuple[str, ...]:
    return contrast.key, contrast.low, contrast.high, contrast.shuffled
