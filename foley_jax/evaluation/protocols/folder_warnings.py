"""Warnings about the folders that are judged, in words, a line each."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from foley_jax.evaluation import run_card

UNLIKE_LENGTHS = 0.05  # shares of the reference's median length by which a system's may differ


def of_run(account: run_card.Account, asked: Collection[str]) -> str:
    """One line about a run: what it lacks, and what nobody asked for; "" if all is well.

    Args:
      asked: all names of the reference: a file whose reference cannot be judged is no stranger.
    """
    strangers = [name for name in account.foreign if name not in asked]
    line = account.complaint()
    if not strangers:
        return line
    line = line or f"{len(account.scored)} of {len(account.requested)} scored"
    return f"{line}; {len(strangers)} not asked for ({run_card.some(strangers)})"


def of_nothing(name: str, accounts: Sequence[run_card.Account], lines: Sequence[str]) -> str:
    """Why nothing of a system can be scored.

    Args:
      accounts, lines: of its runs.
    """
    reasons = [why for account in accounts for why in account.unreadable.values()]
    return "; ".join([f"nothing of {name} can be scored: {lines[0]}", *reasons[:1]])


def of_sets(systems: Mapping[str, Sequence[Mapping[str, Any]]], reference: str) -> Iterator[str]:
    """Lines about runs that hold the same files, or audio of another length than the reference.

    Args:
      systems: name -> entries of the run card, one per run.
      reference: name of the reference among them.
    """
    holders: dict[str, list[str]] = {}
    for name, runs in systems.items():
        for run in runs:
            who = name if name == reference else f"{name}, {run['folder']}"
            if run["items"]["scored"]:
                holders.setdefault(run["sounds_sha256"], []).append(who)
    for who in holders.values():
        if len(who) > 1:
            yield f"{' and '.join(who)} hold the same files"
    true_s = _median_s(systems[reference][0])
    for name, runs in systems.items():
        for run in runs:
            own_s = _median_s(run)
            if true_s and own_s and abs(own_s - true_s) > UNLIKE_LENGTHS * true_s:
                yield (
                    f"{name}, {run['folder']}: audio clips of {own_s:.2f} s (median), those of the "
                    f"reference of {true_s:.2f} s"
                )


def _median_s(run: Mapping[str, Any]) -> float:
    lengths_s = run["sound"]["seconds_min_median_max"]
    return lengths_s[1] if lengths_s else 0.0
