"""A row per item: what became of it, and its own figures."""

from collections.abc import Iterator, Mapping
from typing import Any

from foley_jax.evaluation import run_card


def of_run(
    system: str, number: int, account: run_card.Account, figures: Mapping[str, Mapping[str, float]]
) -> Iterator[dict[str, Any]]:
    """The rows of what was asked of one run, for `tables.write_per_sample`.

    Args:
      number: of the run.
      figures: name -> figures, of the items that have some.
    """
    for name in account.requested:
        row = {"system": system, "run": number, "name": name, "status": _status(name, account)}
        row |= figures.get(name, {})
        if why := account.unreadable.get(name):
            row["why"] = why
        yield row


def _status(name: str, account: run_card.Account) -> str:
    """Returns fate of an item, in one word."""
    for status in ("missing", "unreadable", "silent"):
        if name in getattr(account, status):
            return status
    return "scored"
