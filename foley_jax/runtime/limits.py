"""Checks of numbers that somebody sets; no setting is read past them.

Each check returns the number as Python's own `int` or `float`, so that it can be compared and
written into JSON, or says in one line what came and what was expected.
"""

import argparse
import math
import numbers
import operator
from typing import Any

SEEDS = 2**64  # every integer from 0 to below it is a seed of its own
LARGEST = 3.4028234e38  # what float32, in which devices compute, can hold
SHOWN = 60  # characters of a refused value


def whole(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """Returns a whole number within a range.

    Args:
      name: of the setting, for the message.
      value: any integer type; no bool, which is a mistake here.
      least, most: allowed ends of the range; None is open.
    Raises:
      ValueError: it is none, or out of range.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    below = number is not None and least is not None and number < least
    above = number is not None and most is not None and number > most
    if number is None or below or above:
        raise ValueError(f"{name} is {_shown(value)}, expected a whole number{_range(least, most)}")
    return number


def student_steps(steps: int, own: int) -> None:
    """Refuses other steps than the `own` ones that a model was distilled to, by a ValueError."""
    if steps != own:
        raise ValueError(
            f"steps is {steps}, but the model was distilled to {own}; give steps={own}, or the "
            "student of other steps"
        )


def real(name: str, value: Any, least: float | None = None, *, above: float | None = None) -> float:
    """Returns a number that is finite, in float32 too, and within a range.

    Args:
      name: of the setting, for the message.
      value: any real number type; no bool.
      least: allowed lower end of the range, or None.
      above: a lower end that is not allowed itself, or None.
    Raises:
      ValueError: it is none, not finite, or out of range.
    """
    try:
        number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    low = (least is not None and number < least) or (above is not None and number <= above)
    if not abs(number) <= LARGEST or low:
        bound = _range(least, None) if above is None else f" above {above:g}"
        raise ValueError(f"{name} is {_shown(value)}, expected a finite number{bound}")
    return number


def share(name: str, value: Any) -> float:
    """Returns a number above 0 and of at most 1.

    Raises:
      ValueError: it is none, or out of range.
    """
    number = real(name, value, above=0)
    if number > 1:
        raise ValueError(f"{name} is {number:g}, expected a number above 0 and of at most 1")
    return number


def seed(value: Any, name: str = "seed") -> int:
    """Returns a seed: any integer from 0 to 2**64 - 1.

    Raises:
      ValueError: it is none.
    """
    return whole(name, value, 0, SEEDS - 1)


def seed_argument(text: str) -> int:
    """The `type` of a command line's seed."""
    try:
        value: Any = int(text)
    except ValueError:
        value = text
    return _argument(seed, value)


def count_argument(text: str) -> int:
    """The `type` of a command line's number of things, at least one."""
    try:
        value: Any = int(text)
    except ValueError:
        value = text
    return _argument(lambda value: whole("it", value, 1), value)


def number_argument(text: str) -> float:
    """The `type` of a command line's finite number; `float` itself takes "nan" and "inf"."""
    try:
        value: Any = float(text)
    except ValueError:
        value = text
    return _argument(lambda value: real("it", value), value)


def span_argument(text: str) -> tuple[float, float]:
    """The `type` of a command line's span of seconds, START:STOP."""
    start, _, stop = text.partition(":")
    try:
        span = float(start), float(stop)
    except ValueError:
        span = (0.0, 0.0)
    if not 0 <= span[0] < span[1] < float("inf"):
        raise argparse.ArgumentTypeError(
            f"it is {text!r}, expected START:STOP in seconds, e.g. 2.5:4"
        )
    return span


def _argument(check, value: Any) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, numbers.Number) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _range(least: float | None, most: float | None) -> str:
    if most is not None:
        return f" from {least} to {most}"
    return "" if least is None else f" of at least {least:g}"
