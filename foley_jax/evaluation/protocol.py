"""What every protocol has in common: items by name, seeds, the reference beside the result.

A protocol says what is heard in a sound, what an item of the reference is judged by, and which
figures come of both; `evaluate` does the rest the same way for all.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any, Protocol

import tqdm

from foley_jax.evaluation import run_card, seeds
from foley_jax.media import audio as audio_io
from foley_jax.media import container

REFERENCE = "reference"


class Rules(Protocol):
    """A named protocol.

    Attributes:
      name: under which every figure is printed.
      sample_rate_hz: at which sounds are heard.
      columns: head of a column of the table -> figure; None is the bootstrap interval, figures
        `f1_low` and `f1_high`.
      more_columns: likewise, shown where a system has the figure.
      key: the figure whose spread over seeds is reported.
    """

    name: str
    sample_rate_hz: int
    columns: Mapping[str, str | None]
    more_columns: Mapping[str, str]
    key: str

    def settings(self) -> dict[str, Any]:
        """Everything the figures depend on beside the files."""

    def listen(self, audio_L: Any) -> Any:
        """What is heard in a sound, float32 [L]."""

    def refer(self, path: Path, heard: Any) -> Any:
        """What an item is judged by: from the reference's file, and what is heard in it.

        Raises:
          MediaError: the file lacks what the protocol needs.
        """

    def figures(self, heard: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
        """Figures over the items of `heard`; `reference` holds at least those."""

    def row(self, heard: Any, reference: Any) -> dict[str, float]:
        """Figures of one item."""


@dataclasses.dataclass(frozen=True)
class Result:
    """Of one protocol on all systems.

    Attributes:
      figures: system -> figures, the reference first.
      samples: one row per system, run and item, for `tables.write_per_sample`.
      systems: system -> entries of the run card, one per run.
      complaints: what is missing, unreadable or silent, a line per run.
    """

    figures: dict[str, dict[str, float]]
    samples: list[dict[str, Any]]
    systems: dict[str, list[dict[str, Any]]]
    complaints: list[str]


@dataclasses.dataclass(frozen=True)
class _Run:
    """What was heard in one folder."""

    folder: Path
    heard: dict[str, Any]
    account: run_card.Account


def evaluate(
    rules: Rules,
    systems: Mapping[str, Sequence[Path]],
    reference: Path,
    checkpoints: Mapping[str, Path] | None = None,
) -> Result:
    """Judges every run (folder) of every system, and the reference's own sound.

    Args:
      systems: name -> a folder per seed.
      reference: folder of the true sounds or videos; its stems are what is asked for.
      checkpoints: name -> weights to hash for the run card.
    Raises:
      FileNotFoundError: a folder without sounds.
      ValueError: a system of which nothing can be scored, or named like the reference.
    """
    if REFERENCE in systems:
        raise ValueError(f"a system is named {REFERENCE!r}; give it another name")
    checkpoints = checkpoints or {}
    true, run = _read_reference(rules, reference)
    result = Result({}, [], {}, [])
    _add(rules, result, REFERENCE, [run], true, None)
    for name, folders in systems.items():
        runs = [_listen(rules, run.account.scored, folder, name) for folder in folders]
        _add(rules, result, name, runs, true, checkpoints.get(name))
    return result


def _read_reference(rules: Rules, folder: Path) -> tuple[dict[str, Any], _Run]:
    """What the items are judged by, and the reference as a system."""
    paths = run_card.find_sounds(folder)
    run = _listen(rules, tuple(paths), folder, REFERENCE)
    true, lacking = {}, dict(run.account.unreadable)
    items = tqdm.tqdm(run.heard.items(), desc=f"{REFERENCE}: truth", unit="clip", leave=False)
    for name, heard in items:
        try:
            true[name] = rules.refer(paths[name], heard)
        except container.MediaError as error:
            lacking[name] = str(error)
    account = dataclasses.replace(
        run.account,
        scored=tuple(true),
        unreadable=lacking,
        silent=tuple(name for name in run.account.silent if name in true),
    )
    return true, _Run(folder, {name: run.heard[name] for name in true}, account)


def _listen(rules: Rules, names: Sequence[str], folder: Path, what: str) -> _Run:
    """Listens to what there is of the named sounds, one at a time."""
    paths = run_card.find_sounds(folder)
    heard: dict[str, Any] = {}
    unreadable: dict[str, str] = {}
    silent = []
    for name in tqdm.tqdm(names, desc=what, unit="clip", leave=False):
        if name not in paths:
            continue
        try:
            audio_L = audio_io.load(paths[name], rules.sample_rate_hz)
        except container.MediaError as error:
            unreadable[name] = str(error)
            continue
        heard[name] = rules.listen(audio_L)
        if run_card.is_silent(audio_L):
            silent.append(name)
    account = run_card.Account(
        requested=tuple(names),
        scored=tuple(heard),
        missing=tuple(name for name in names if name not in paths),
        unreadable=unreadable,
        silent=tuple(silent),
        foreign=tuple(name for name in paths if name not in set(names)),
    )
    return _Run(folder, heard, account)


def _add(
    rules: Rules,
    result: Result,
    name: str,
    runs: Sequence[_Run],
    true: Mapping[str, Any],
    checkpoint: Path | None,
) -> None:
    """Enters one system into the result."""
    figures = []
    result.systems[name] = []
    for number, run in enumerate(runs):
        if complaint := run.account.complaint():
            result.complaints.append(f"{name}, {run.folder.name}: {complaint}")
        if not run.heard:
            raise ValueError(f"nothing of {name} can be scored: {run.account.complaint()}")
        own = rules.figures(run.heard, true)
        figures.append({**own, **seeds.mean_scores(run.folder, run.account.scored)})
        result.systems[name].append(run_card.of_system(run.folder, run.account, checkpoint))
        for item in run.account.requested:
            row = {"system": name, "run": number, "name": item, "status": _status(item, run)}
            scored = rules.row(run.heard[item], true[item]) if item in run.heard else {}
            result.samples.append({**row, **scored})
    result.figures[name] = seeds.merge(figures, key=rules.key)


def _status(name: str, run: _Run) -> str:
    """What became of an item, in one word."""
    for status in ("missing", "unreadable", "silent"):
        if name in getattr(run.account, status):
            return status
    return "scored"
