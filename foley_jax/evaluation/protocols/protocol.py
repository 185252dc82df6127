"""What every protocol has in common: items by name, seeds, the reference beside the result.

A protocol says what is heard in a sound, what an item of the reference is judged by, and which
figures come of both; `evaluate` does the rest the same way for all.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from foley_jax.evaluation import run_card, seeds
from foley_jax.media import audio as audio_io
from foley_jax.runtime import reasons

REFERENCE = "reference"
HALVES = "reference, half against half"


@dataclasses.dataclass(frozen=True)
class Perceived:
    """What a protocol heard (or saw) in some files, by name.

    Attributes:
      items: name -> whatever the protocol needs of it.
      unreadable: name -> why.
      silent: names among the items whose sound is nowhere above `run_card.SILENT_PEAK`.
    """

    items: dict[str, Any]
    unreadable: dict[str, str]
    silent: tuple[str, ...]


class Rules:
    """A named protocol.

    Attributes:
      name: under which every figure is printed.
      columns: head of a column of the table -> figure; None is the bootstrap interval, figures
        `f1_low` and `f1_high`.
      more_columns: likewise, shown where a system has the figure.
      key: the figure whose spread over seeds is reported; of items, what the best and the worst
        are chosen by.
      ascending: whether a larger `key` is better.
      pools_runs: whether several runs of a system are one set of samples (several for each
        item), not seeds whose figures are averaged.
      is_paired: whether an item is judged against the reference of its name; else all files of a
        folder are one set, beside the set of the reference.
      suffixes: which files are items; of one name the first kind is taken.
    """

    name: str
    columns: Mapping[str, str | None]
    more_columns: Mapping[str, str] = {}
    key: str
    ascending: bool = True
    pools_runs: bool = False
    is_paired: bool = True
    suffixes: Sequence[str] = run_card.SUFFIXES

    def settings(self) -> dict[str, Any]:
        """Everything the figures depend on beside the files, JSON-able."""
        raise NotImplementedError

    def skipped(self) -> dict[str, str]:
        """Metrics that cannot be computed -> why; there is no figure in their place."""
        return {}

    def perceive(self, paths: Mapping[str, Path], what: str) -> Perceived:
        """Hears all files; a bad one is named, the rest goes on. `what` is for progress bars."""
        raise NotImplementedError

    def refer(self, path: Path, heard: Any) -> Any:
        """What an item is judged by: from the reference's file, and what is heard in it.

        Raises:
          MediaError: the file lacks what the protocol needs.
        """
        del path
        return heard

    def group(self, reference: Any) -> str:
        """Name of the part of the reference that an item is scored in; "" is the whole."""
        del reference
        return ""

    def figures(self, heard: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
        """Figures over the items of `heard`, `clips` (their number) among them.

        Args:
          heard: name -> item; with `pools_runs` (name, run) -> item.
          reference: name -> what `refer` gave; at least for the names of `heard`.
        """
        raise NotImplementedError

    def floor(self, heard: Mapping[str, Any]) -> dict[str, float]:
        """What the distances are between random halves of the reference; {}: nothing to say."""
        del heard
        return {}

    def row(self, heard: Any, reference: Any) -> dict[str, float]:
        """Figures of one item; `reference` is None where the protocol pairs nothing."""
        raise NotImplementedError


class ListeningRules(Rules):
    """A protocol that hears one sound at a time.

    Attributes:
      sample_rate_hz: at which sounds are heard.
    """

    sample_rate_hz: int

    def perceive(self, paths: Mapping[str, Path], what: str) -> Perceived:
        return listen_each(paths, what, self.sample_rate_hz, self.listen)

    def listen(self, audio_L: np.ndarray) -> Any:
        """What is heard in a sound, float32 [L].

        Raises:
          MediaError: it cannot be judged; the file then counts as unreadable.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Result:
    """Of one protocol on all systems.

    Attributes:
      figures: system (or "GROUP: SYSTEM") -> figures, the reference first.
      samples: one row per system, run and item, for `tables.write_per_sample`.
      systems: system -> entries of the run card, one per run.
      complaints: what is missing, unreadable or silent, a line per run.
      skipped: metric -> why it is not among the figures.
      files: system -> for every run, name -> file that was scored; the reference's are its own.
    """

    figures: dict[str, dict[str, float]]
    samples: list[dict[str, Any]]
    systems: dict[str, list[dict[str, Any]]]
    complaints: list[str]
    skipped: dict[str, str]
    files: dict[str, list[dict[str, Path]]]


@dataclasses.dataclass(frozen=True)
class _Run:
    """What was heard in one folder."""

    folder: Path
    heard: dict[str, Any]
    account: run_card.Account
    paths: dict[str, Path]


def evaluate(
    rules: Rules,
    systems: Mapping[str, Sequence[Path]],
    reference: Path | Sequence[Path],
    checkpoints: Mapping[str, Path] | None = None,
) -> Result:
    """Judges every run (folder) of every system, and the reference's own sound.

    Args:
      systems: name -> a folder per seed.
      reference: folder (or several) of the true sounds or videos; its stems are what is asked
        for.
      checkpoints: name -> weights to hash for the run card.
    Raises:
      FileNotFoundError: a folder without sounds.
      ValueError: a system of which nothing can be scored, or named like the reference; a stem
        in two folders of the reference.
    """
    if taken := {REFERENCE, HALVES} & set(systems):
        raise ValueError(f"a system is named {taken.pop()!r}; give it another name")
    checkpoints = checkpoints or {}
    folders = [reference] if isinstance(reference, Path) else list(reference)
    true, run = _read_reference(rules, folders)
    judge = _Judge(rules, true)
    judge.add(REFERENCE, [run], None)
    judge.add_floor(run)
    for name, runs in systems.items():
        names = run.account.scored if rules.is_paired else None
        heard = [_hear(rules, names, [folder], name) for folder in runs]
        judge.add(name, heard, checkpoints.get(name))
    return judge.result


def listen_each(
    paths: Mapping[str, Path], what: str, rate_hz: int, listen: Callable[[np.ndarray], Any]
) -> Perceived:
    """`Rules.perceive` for protocols that hear one sound, float32 [L] at `rate_hz`, at a time.

    A file whose reading or `listen` raises anything counts as unreadable.
    """
    items: dict[str, Any] = {}
    unreadable: dict[str, str] = {}
    silent = []
    for name, path in tqdm.tqdm(paths.items(), desc=what, unit="clip", leave=False):
        try:
            audio_L = audio_io.load(path, rate_hz)
            items[name] = listen(audio_L)
        except Exception as error:  # one bad file never stops the rest
            unreadable[name] = reasons.of(error)
            continue
        if run_card.is_silent(audio_L):
            silent.append(name)
    return Perceived(items, unreadable, tuple(silent))


def find_all(
    folders: Sequence[Path], suffixes: Sequence[str] = run_card.SUFFIXES
) -> dict[str, Path]:
    """Sounds and videos of several folders by stem.

    Raises:
      FileNotFoundError: a folder without any.
      ValueError: a stem in two of them.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        paths = run_card.find_sounds(folder, suffixes)
        if twice := sorted(set(found) & set(paths)):
            raise ValueError(f"{twice[:3]} in {folder} and in another folder; rename one")
        found |= paths
    return found


def _read_reference(rules: Rules, folders: Sequence[Path]) -> tuple[dict[str, Any], _Run]:
    """What the items are judged by, and the reference as a system."""
    run = _hear(rules, None, folders, REFERENCE)
    true, lacking = {}, dict(run.account.unreadable)
    items = tqdm.tqdm(run.heard.items(), desc=f"{REFERENCE}: truth", unit="clip", leave=False)
    for name, heard in items:
        try:
            true[name] = rules.refer(run.paths[name], heard)
        except Exception as error:  # one bad file never stops the rest
            lacking[name] = reasons.of(error)
    account = dataclasses.replace(
        run.account,
        scored=tuple(true),
        unreadable=lacking,
        silent=tuple(name for name in run.account.silent if name in true),
    )
    kept = {name: run.heard[name] for name in true}
    return true, dataclasses.replace(run, heard=kept, account=account)


def _hear(rules: Rules, names: Sequence[str] | None, folders: Sequence[Path], what: str) -> _Run:
    """Hears what there is of the named files, or of all."""
    paths = find_all(folders, rules.suffixes)
    names = tuple(paths) if names is None else names
    wanted = {name: paths[name] for name in names if name in paths}
    found = rules.perceive(wanted, what)
    account = run_card.Account(
        requested=tuple(names),
        scored=tuple(found.items),
        missing=tuple(name for name in names if name not in paths),
        unreadable=found.unreadable,
        silent=found.silent,
        foreign=tuple(name for name in paths if name not in set(names)),
    )
    return _Run(folders[0], found.items, account, wanted)


class _Judge:
    """Enters one system after the other into the result."""

    def __init__(self, rules: Rules, true: Mapping[str, Any]):
        self.rules, self.true = rules, true
        self.result = Result({}, [], {}, [], rules.skipped(), {})
        self.groups: dict[str, dict[str, Any]] = {}
        for name, reference in true.items():
            self.groups.setdefault(rules.group(reference), {})[name] = reference

    def add(self, name: str, runs: Sequence[_Run], checkpoint: Path | None) -> None:
        """Figures, rows and card of a system.

        Raises:
          ValueError: nothing of a run can be scored.
        """
        result = self.result
        for run in runs:
            if complaint := run.account.complaint():
                result.complaints.append(f"{name}, {run.folder.name}: {complaint}")
            if not run.heard:
                why = "".join(f"; {reason}" for reason in list(run.account.unreadable.values())[:1])
                raise ValueError(f"nothing of {name} can be scored: {complaint}{why}")
        for group, reference in self.groups.items():
            found = self._figures(runs, reference)
            if found:
                result.figures[_title(group, name)] = found
        result.systems[name] = [
            run_card.of_system(run.folder, run.paths, run.account, checkpoint) for run in runs
        ]
        result.files[name] = [{n: run.paths[n] for n in run.heard} for run in runs]
        for number, run in enumerate(runs):
            result.samples.extend(self._rows(name, number, run))

    def add_floor(self, run: _Run) -> None:
        """The row of the reference's halves, where the protocol has one."""
        for group, reference in self.groups.items():
            if floor := self.rules.floor({n: run.heard[n] for n in reference}):
                self.result.figures[_title(group, HALVES)] = floor

    def _figures(self, runs: Sequence[_Run], reference: Mapping[str, Any]) -> dict[str, float]:
        """Of one system on one group; {} if no run has anything of it."""
        heard = [
            {n: x for n, x in run.heard.items() if n in reference or not self.rules.is_paired}
            for run in runs
        ]
        present = [(run, items) for run, items in zip(runs, heard) if items]
        if not present:
            return {}
        if self.rules.pools_runs:
            pooled = {(n, k): item for k, items in enumerate(heard) for n, item in items.items()}
            return {**self.rules.figures(pooled, reference), "seeds": len(present)}
        figures = [
            {**self.rules.figures(items, reference), **seeds.mean_scores(run.folder, list(items))}
            for run, items in present
        ]
        return seeds.merge(figures)

    def _rows(self, system: str, number: int, run: _Run) -> list[dict[str, Any]]:
        rows = []
        for item in run.account.requested:
            row = {"system": system, "run": number, "name": item, "status": _status(item, run)}
            if item in run.heard:
                row |= self.rules.row(run.heard[item], self.true.get(item))
            rows.append(row)
        return rows


def _title(group: str, system: str) -> str:
    return f"{group}: {system}" if group else system


def _status(name: str, run: _Run) -> str:
    """What became of an item, in one word."""
    for status in ("missing", "unreadable", "silent"):
        if name in getattr(run.account, status):
            return status
    return "scored"
