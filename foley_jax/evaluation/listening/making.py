"""A listening test from folders of systems: the page's folder, and apart from it the key.

The page's folder holds index.html, test.json and media/ under random names, and nothing that says
which system a clip is of. The key does; keep it until all answers are there.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
from pathlib import Path
import secrets
import shutil
from typing import Any

import numpy as np
import tqdm

from foley_jax.evaluation import pairing, run_card
from foley_jax.evaluation.listening import answer_key, answers, listening_page, questions, stimuli
from foley_jax.media import files, names
from foley_jax.runtime import reasons

MEDIA = "media"
PAGE_FILES = ("index.html", answers.TEST_FILE)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A test to be made.

    Attributes:
      systems: name -> folder.
      real: name among the systems of the one whose clips are recordings; None if there is none.
      videos: folder of the videos that are shown with every system's audio, by name; None shows
        each system's own. If a system has audio alone, the real one's videos are shown with all.
      kinds: of `questions.KINDS`.
      per_listener: questions per listener; None is all.
      checks: attention checks per listener, 0 to 5.
      num_seats: orders of questions.
      seed: of the orders.
      title: over the page; listeners see it.
      clips: how clips are made alike.
    """

    systems: Mapping[str, Path]
    real: str | None
    videos: Path | None = None
    kinds: Sequence[str] = questions.KINDS
    per_listener: int | None = None
    checks: int = 3
    num_seats: int = questions.DEFAULT_SEATS
    seed: int = 0
    title: str = "Listening test"
    clips: stimuli.Settings = stimuli.Settings()

    def __post_init__(self):
        if not 0 <= self.checks <= len(questions.POINTS):
            raise ValueError(f"{self.checks} attention checks, expected 0 to 5")
        if questions.REAL in self.kinds and self.real is None:
            raise ValueError(
                f"questions of kind {questions.REAL} need recordings among the clips; give "
                "--real=DIR, or leave that kind out of --ask"
            )


@dataclasses.dataclass(frozen=True)
class Made:
    """A test that was made: its plan, and what is to be said of it, a line each."""

    plan: questions.Plan
    remarks: list[str]


def make(out: Path, key: Path, wanted: Wanted) -> Made:
    """Writes a test.

    Args:
      out: the page's folder; new, or empty.
      key: file of the key, outside of `out`; new.
    Raises:
      FileNotFoundError: a folder is not there, or empty.
      FileExistsError: `out` holds something, or the key is there: a key that is overwritten makes
        all answers to its test worthless.
      ValueError: no item that every system has, or as `questions.make`.
    """
    _check_places(out, key)
    items, remarks = find_items(wanted, leave_out=[out])
    if questions.SYNC in wanted.kinds and not _has_video(items):
        raise ValueError("questions of sync need videos; give --videos=DIR, or leave sync out")
    media = out / MEDIA
    media.mkdir(parents=True, exist_ok=True)
    try:
        made, failed = _write_items(media, items, wanted)
        remarks += failed
        if not made:
            raise ValueError("no item could be made: " + "; ".join(failed))
        test = secrets.token_hex(8)
        beeps = _beeps(wanted)
        checks = {stimuli.write_check(media, count, wanted.clips): count for count in beeps}
        named = {i: {s: clip.name for s, clip in clips.items()} for i, clips in made.items()}
        plan = questions.make(
            named,
            checks,
            wanted.kinds,
            per_listener=wanted.per_listener,
            num_seats=wanted.num_seats,
            seed=wanted.seed,
        )
        public = answers.public(test, wanted.title, plan)
        listening_page.write(out, public)
        key.parent.mkdir(parents=True, exist_ok=True)
        key.write_text(json.dumps(_key(public, wanted, plan, made), indent=1) + "\n")
    except BaseException:
        # a test without its key cannot be scored
        shutil.rmtree(media, ignore_errors=True)
        for name in PAGE_FILES:
            (out / name).unlink(missing_ok=True)
        raise
    _one_time(out)
    return Made(plan, remarks)


def _check_places(out: Path, key: Path) -> None:
    if key.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"the key {key} lies in the page's folder, expected a place outside it")
    for path in (key, out):
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise FileExistsError(f"{path} is there already; give another --out or --key")


def possible_kinds(wanted: Wanted) -> tuple[str, ...]:
    """Returns the kinds of questions that the folders allow."""
    items, _ = find_items(wanted)
    return tuple(
        kind
        for kind in questions.KINDS
        if not (kind == questions.REAL and wanted.real is None)
        and not (kind == questions.PREFERENCE and len(wanted.systems) < 2)
        and not (kind == questions.SYNC and not _has_video(items))
    )


def find_items(
    wanted: Wanted, leave_out: Sequence[Path] = ()
) -> tuple[dict[str, dict[str, stimuli.Source]], list[str]]:
    """Finds the items that every system has.

    Returns:
      Item -> system -> its files, and a line for each system about items that others lack.
    Raises:
      FileNotFoundError: a folder is not there, or empty.
      ValueError: no system, or no item that all have.
    """
    if not wanted.systems:
        raise ValueError("no systems, expected --system=NAME=DIR or --real=DIR")
    heard = {s: run_card.find_audio(d, leave_out=leave_out) for s, d in wanted.systems.items()}
    seen = {
        s: run_card.find_items(d, files.VIDEO_SUFFIXES, leave_out)
        for s, d in wanted.systems.items()
    }
    first = wanted.real or next(iter(wanted.systems))
    for system in (s for s in heard if s != first):
        for of in (heard, seen):
            of[system] = pairing.pair(of[system], wanted.systems[system], heard[first]).paths
    shared = _shared_videos(wanted, seen, heard, leave_out)
    common = [i for i in heard[first] if all(i in paths for paths in heard.values())]
    remarks = [
        f"{system}: {len(lost)} items left out, which others lack or have twice "
        f"({run_card.some(lost)})"
        for system, paths in heard.items()
        if (lost := [item for item in paths if item not in common])
    ]
    if shared is not None:
        lost = [item for item in common if item not in shared]
        common = [item for item in common if item in shared]
        remarks += [f"{len(lost)} items without video left out ({run_card.some(lost)})"] * any(lost)
    if not common:
        raise ValueError(
            f"no item that all of {', '.join(heard)} have; expected files of the same names"
        )
    videos = {s: seen[s] if shared is None else shared for s in heard}
    items = {i: {s: stimuli.Source(heard[s][i], videos[s].get(i)) for s in heard} for i in common}
    return items, [names.shown(line) for line in remarks]


def _shared_videos(
    wanted: Wanted,
    seen: Mapping[str, Mapping[str, Path]],
    heard: Mapping[str, Mapping[str, Path]],
    leave_out: Sequence[Path],
) -> Mapping[str, Path] | None:
    """The videos that all systems' audio is shown with; None shows each system's own, or none."""
    if wanted.videos is not None:
        found = run_card.find_items(wanted.videos, files.VIDEO_SUFFIXES, leave_out)
        if not found:
            raise FileNotFoundError(f"{wanted.videos}: no such folder, or no videos in it")
        first = wanted.real or next(iter(wanted.systems))
        return pairing.pair(found, wanted.videos, heard[first]).paths
    if all(not paths for paths in seen.values()):
        return None
    lacking = [s for s in heard if any(item not in seen[s] for item in heard[s])]
    if not lacking:
        return None
    if wanted.real is None or wanted.real in lacking:
        raise ValueError(
            f"{', '.join(lacking)} has audio without video, others have videos; give --videos=DIR "
            "of the videos to be shown with all of them"
        )
    return seen[wanted.real]


def _has_video(items: Mapping[str, Mapping[str, stimuli.Source]]) -> bool:
    return all(s.video is not None for sources in items.values() for s in sources.values())


def _write_items(
    media: Path, items: Mapping[str, Mapping[str, stimuli.Source]], wanted: Wanted
) -> tuple[dict[str, dict[str, stimuli.Written]], list[str]]:
    """Item -> system -> clip of what could be written, and why the others could not."""
    made, failed = {}, []
    for item, sources in tqdm.tqdm(items.items(), desc="clips", unit="item", leave=False):
        try:
            made[item] = stimuli.write_item(media, sources, wanted.clips)
        except (OSError, ValueError) as error:
            failed.append(names.shown(f"{item} left out: {reasons.of(error)}"))
            continue
        silent = [s for s, clip in made[item].items() if clip.facts["gain_db"] is None]
        if silent:
            failed.append(names.shown(f"{item}: silent in {', '.join(silent)}, asked all the same"))
    return made, failed


def _beeps(wanted: Wanted) -> list[int]:
    """How many beeps are in each attention check, all different: a constant answer fails."""
    rng = np.random.default_rng([wanted.seed, 1])
    return rng.permutation(questions.POINTS)[: wanted.checks].tolist()


def _key(
    public: Mapping[str, Any],
    wanted: Wanted,
    plan: questions.Plan,
    made: Mapping[str, Mapping[str, stimuli.Written]],
) -> dict[str, Any]:
    """What turns answers into figures, and what the test was made from."""
    return {
        "version": answer_key.VERSION,
        "test": public["test"],
        "title": wanted.title,
        "commit": run_card.commit(),
        "systems": list(wanted.systems),
        "real": wanted.real,
        "folders": {system: folder.name for system, folder in wanted.systems.items()},
        "settings": {
            "kinds": list(wanted.kinds),
            "per_listener": wanted.per_listener,
            "checks": wanted.checks,
            "seed": wanted.seed,
            **dataclasses.asdict(wanted.clips),
        },
        "seats": public["seats"],
        "questions": [dataclasses.asdict(question) for question in plan.questions],
        "clips": {
            clip.name: {"item": item, "system": system, **clip.facts}
            for item, clips in made.items()
            for system, clip in clips.items()
        },
    }


def _one_time(out: Path) -> None:
    """Gives all files one time, so that a listing says nothing."""
    now = out.stat().st_mtime
    for path in sorted(out.rglob("*")):
        os.utime(path, (now, now))
