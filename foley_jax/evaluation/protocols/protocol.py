"""The frame of every protocol: items by name, seeds, the reference beside the result.

A protocol says what is heard in an audio clip, what an item of the reference is judged by, and
which figures come of both; `evaluate` does the rest the same way for all.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

import tqdm

from foley_jax.evaluation import pairing, run_card, seeds, tables
from foley_jax.evaluation.protocols import folder_warnings, item_rows
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.evaluation.statistics import pairs
from foley_jax.runtime import reasons

REFERENCE = "reference"
HALVES = "reference, half against half"
MOST_REASONS = 3  # of items that cannot be told apart, per run
RESERVED = (REFERENCE, HALVES)  # no system may be named like these rows


@dataclasses.dataclass(frozen=True)
class Result:
    """Result of one protocol on all systems.

    Attributes:
      figures: system (or "GROUP: SYSTEM") -> figures, the reference first.
      samples: one row per system, run and item, for `tables.write_per_sample`.
      systems: system -> entries of the run card, one per run.
      complaints: what is missing, unreadable, silent or not asked for, a line per run.
      skipped: metric -> why it is not among the figures.
      files: system -> for every run, name -> file that was scored; the reference's are its own.
      failed: system -> why nothing of it could be judged; its figures are all absent.
    """

    figures: dict[str, dict[str, float]]
    samples: list[dict[str, Any]]
    systems: dict[str, list[dict[str, Any]]]
    folder_warnings: list[str]
    skipped: dict[str, str]
    files: dict[str, list[dict[str, Path]]]
    failed: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Run:
    """Everything that was heard in one folder.

    Attributes:
      ambiguous: name -> which files, or items of the reference, cannot be told apart.
    """

    folder: Path
    heard: dict[str, Any]
    account: run_card.Account
    paths: dict[str, Path]
    ambiguous: dict[str, str] = dataclasses.field(default_factory=dict)


def evaluate(
    rules: rules_lib.Rules,
    systems: Mapping[str, Sequence[Path]],
    reference: Path | Sequence[Path],
    checkpoints: Mapping[str, Path] | None = None,
    *,
    leave_out: Sequence[Path] = (),
) -> Result:
    """Judges every run (folder) of every system, and the reference's own audio.

    A run of which nothing can be scored stops no other; a system without any is told as failed.

    Args:
      systems: name -> a folder per seed.
      reference: folder (or several) of the true audio clips or videos; its names (paths below the
        folder, without suffix) are what is asked for.
      checkpoints: name -> weights to hash for the run card.
      leave_out: folders that are not searched: where the caller writes.
    Raises:
      FileNotFoundError: a reference without audio clips.
      ValueError: nothing of the reference can be scored, or nothing of any system; a system that
        is named like the reference; a name in two folders of the reference; a folder that is to
        be left out.
    """
    seeds.refuse(systems, RESERVED)
    checkpoints = checkpoints or {}
    folders = [reference] if isinstance(reference, Path) else list(reference)
    true, run = _read_reference(rules, folders, leave_out)
    judge = _Judge(rules, true, run.account.requested)
    judge.add(REFERENCE, [run], None)
    if why := judge.result.failed.get(REFERENCE):
        raise ValueError(why)
    judge.add_floor(run)
    for name, runs in systems.items():
        asked = run if rules.is_paired else None
        heard = [_hear_folder(rules, asked, folder, name, leave_out) for folder in runs]
        judge.add(name, heard, checkpoints.get(name))
    result = judge.result
    if systems and len(result.failed) == len(systems):
        raise ValueError("; ".join(result.failed.values()))
    result.folder_warnings.extend(folder_warnings.of_sets(result.systems, REFERENCE))
    return result


def find_all(
    folders: Sequence[Path],
    suffixes: Sequence[str] = run_card.SUFFIXES,
    leave_out: Sequence[Path] = (),
) -> dict[str, Path]:
    """Audio clips and videos of several folders by name, see `run_card.find_items`.

    Raises:
      FileNotFoundError: a folder without any.
      ValueError: a name in two of them, or a folder that is to be left out.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        paths = run_card.find_audio(folder, suffixes, leave_out)
        if twice := sorted(set(found) & set(paths)):
            raise ValueError(f"{twice[:3]} in {folder} and in another folder; rename one")
        found |= paths
    return found


def _read_reference(
    rules: rules_lib.Rules, folders: Sequence[Path], leave_out: Sequence[Path]
) -> tuple[dict[str, Any], _Run]:
    """Returns what the items are judged by, and the reference as a system."""
    run = _hear(rules, None, folders, REFERENCE, leave_out)
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


def _hear(
    rules: rules_lib.Rules,
    asked: _Run | None,
    folders: Sequence[Path],
    what: str,
    leave_out: Sequence[Path],
) -> _Run:
    """Hears what there is of the reference's items, or all files where none are asked for."""
    paths, ambiguous = find_all(folders, rules.suffixes, leave_out), {}
    names = tuple(paths)
    if asked is not None:
        names = asked.account.scored
        pairs = pairing.pair(paths, folders[0], asked.paths)
        paths = pairs.paths
        ambiguous = {name: why for name, why in pairs.ambiguous.items() if name in names}
    wanted = {name: paths[name] for name in names if name in paths}
    found = rules.extract_features(wanted, what)
    account = run_card.Account(
        requested=tuple(names),
        scored=tuple(found.items),
        missing=tuple(name for name in names if name not in paths and name not in ambiguous),
        unreadable={**found.unreadable, **ambiguous},
        silent=found.silent,
        foreign=tuple(name for name in paths if name not in set(names)),
    )
    return _Run(folders[0], found.items, account, wanted, ambiguous)


def _hear_folder(
    rules: rules_lib.Rules, asked: _Run | None, folder: Path, what: str, leave_out: Sequence[Path]
) -> _Run:
    """`_hear` of a system's folder; one that cannot be heard is a run without items."""
    try:
        return _hear(rules, asked, [folder], what, leave_out)
    except Exception as error:  # the other folders, and the other systems, go on
        names = (folder.name,) if asked is None else asked.account.scored
        lacking = dict.fromkeys(names, reasons.of(error))
        return _Run(folder, {}, run_card.Account(tuple(names), (), unreadable=lacking), {})


class _Judge:
    """Enters one system after the other into the result.

    Args:
      asked: all names of the reference, those that cannot be judged among them.
    """

    def __init__(self, rules: rules_lib.Rules, true: Mapping[str, Any], asked: Sequence[str]):
        self.rules, self.true, self.asked = rules, true, frozenset(asked)
        self.result = Result({}, [], {}, [], rules.skipped(), {})
        self.groups: dict[str, dict[str, Any]] = {}
        for name, reference in true.items():
            self.groups.setdefault(rules.group(reference), {})[name] = reference

    def add(self, name: str, runs: Sequence[_Run], checkpoint: Path | None) -> None:
        """Figures, rows and card of a system; without any item it has failed."""
        result = self.result
        lines = [folder_warnings.of_run(run.account, self.asked) for run in runs]
        for run, line in zip(runs, lines):
            unclear = list(dict.fromkeys(run.ambiguous.values()))[:MOST_REASONS]
            said = [line, *unclear] if line else unclear
            result.folder_warnings.extend(f"{name}, {run.folder.name}: {part}" for part in said)
        if not any(run.heard for run in runs):
            result.failed[name] = folder_warnings.of_nothing(
                name, [run.account for run in runs], lines
            )
        # without an item of the reference there are no groups
        for group, reference in (self.groups or {"": {}}).items():
            try:
                found = self._figures(name, runs, reference)
            except Exception as error:  # the other systems go on
                if name == REFERENCE:
                    raise
                why = f"{name} cannot be judged: {reasons.of(error)}"
                result.failed[name] = why
                found = tables.no_figures(self.rules.columns, why)
            result.figures[_title(group, name)] = found
        result.systems[name] = [
            run_card.of_system(run.folder, run.paths, run.account, checkpoint) for run in runs
        ]
        result.files[name] = [{n: run.paths[n] for n in run.heard} for run in runs]
        for number, run in enumerate(runs):
            heard = {} if name in result.failed else run.heard
            figures = {n: self.rules.row(x, self.true.get(n)) for n, x in heard.items()}
            result.samples.extend(item_rows.of_run(name, number, run.account, figures))

    def add_floor(self, run: _Run) -> None:
        """The row of the reference's halves, where the protocol has one."""
        for group, reference in self.groups.items():
            if floor := self.rules.floor({n: run.heard[n] for n in reference}):
                self.result.figures[_title(group, HALVES)] = floor

    def _figures(
        self, name: str, runs: Sequence[_Run], reference: Mapping[str, Any]
    ) -> dict[str, float]:
        """Returns the figures of one system on one group.

        All absent if no run has anything of it.
        """
        heard = [
            {n: x for n, x in run.heard.items() if n in reference or not self.rules.is_paired}
            for run in runs
        ]
        present = [(run, items) for run, items in zip(runs, heard) if items]
        if not present:
            why = self.result.failed.get(name, "none of these clips is there")
            return tables.no_figures(self.rules.columns, why)
        if self.rules.pools_runs:
            pooled = {(n, k): item for k, items in enumerate(heard) for n, item in items.items()}
            found = {**self.rules.figures(pooled, reference), "seeds": len(present)}
            return pairs.marked(found, self.rules.contrasts)
        figures = [
            {
                **self.rules.figures(items, reference),
                **seeds.mean_scores(run.folder, [run.paths[n].stem for n in items]),
            }
            for run, items in present
        ]
        return pairs.marked(seeds.merge(figures), self.rules.contrasts)


def _title(group: str, system: str) -> str:
    return f"{group}: {system}" if group else system
