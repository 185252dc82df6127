"""The run card: what a published number was made from, and over which files.

A card holds the protocol and its settings, the commit, the versions, hashes of what was judged,
the settings the generator wrote down, and which items were asked for, scored, missing, silent.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import hashlib
from importlib import metadata
import json
from pathlib import Path
import platform
import subprocess
from typing import Any

import numpy as np

from foley_jax.evaluation.statistics import remarks
from foley_jax.media import audio as audio_io
from foley_jax.media import files as media_files
from foley_jax.media import names

SILENT_PEAK = 1e-3  # -60 dB of full scale
# an audio clip beside a video of its name comes first
SUFFIXES = (*media_files.AUDIO_SUFFIXES, *media_files.VIDEO_SUFFIXES)
PACKAGES = ("jax", "flax", "numpy", "scipy", "librosa", "av")


@dataclasses.dataclass(frozen=True)
class Account:
    """Which items of a system were asked for, and what became of them; names, in order.

    Attributes:
      requested: what the reference holds.
      scored: what the figures are made of.
      missing: requested without a file.
      unreadable: requested, with a file that lacks what the protocol needs; name -> why.
      silent: scored, but nowhere louder than `SILENT_PEAK`.
      foreign: files that nobody asked for; not scored.
    """

    requested: tuple[str, ...]
    scored: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unreadable: Mapping[str, str] = dataclasses.field(default_factory=dict)
    silent: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """For the card: both counts, and every list by name."""
        counts = {"requested": len(self.requested), "scored": len(self.scored)}
        lists = ("missing", "unreadable", "silent", "foreign")
        return {**counts, **{name: getattr(self, name) for name in lists}}

    def complaint(self) -> str:
        """One line about everything that is not as it should be; empty if all is well."""
        lists = {name: getattr(self, name) for name in ("missing", "unreadable", "silent")}
        parts = [f"{len(names)} {what} ({some(names)})" for what, names in lists.items() if names]
        if not parts:
            return ""
        return f"{len(self.scored)} of {len(self.requested)} scored; " + ", ".join(parts)


def find_audio(
    folder: Path, suffixes: Sequence[str] = SUFFIXES, leave_out: Sequence[Path] = ()
) -> dict[str, Path]:
    """Audio clips and videos of a folder by name, see `find_items`.

    Raises:
      FileNotFoundError: no folder, or nothing in it.
      ValueError: the folder is to be left out.
    """
    found = find_items(folder, suffixes, leave_out)
    if not found:
        raise FileNotFoundError(f"{folder} holds no {', '.join(suffixes[:9])} files")
    return found


def find_items(
    folder: Path, suffixes: Sequence[str], leave_out: Sequence[Path] = ()
) -> dict[str, Path]:
    """Files of a folder and its subfolders by name, ascending; of one name the first suffix counts.

    A name is the path below the folder without suffix: `a` of a.wav, `cat/0` of cat/0.wav. See
    `passed_over` for what does not count.

    Args:
      leave_out: folders that are not searched.
    Raises:
      ValueError: the folder is among these.
    """
    if not folder.is_dir():
        return {}
    # names are what matters here: many may be links to one silent file
    there = media_files.find([folder], suffixes, leave_out=leave_out, same_once=False)
    found: dict[str, Path] = {}
    for suffix in reversed(suffixes):
        found |= {name_of(folder, p): p for p in there if p.suffix.lower() == suffix}
    return dict(sorted(found.items()))


def passed_over(folders: Iterable[Path], leave_out: Sequence[Path] = ()) -> str:
    """One line about files of these folders that are no items, or share their name with another."""
    there = [folder for folder in folders if folder.is_dir()]
    found = media_files.find(there, SUFFIXES, leave_out=leave_out, same_once=False)
    twins: dict[Path, list[Path]] = {}
    for path in found:
        twins.setdefault(path.with_suffix(""), []).append(path)
    found.namesakes = [" and ".join(map(str, same)) for same in twins.values() if len(same) > 1]
    return found.remark()


def name_of(folder: Path, path: Path) -> str:
    """Returns what an item is called: its path below the folder, without suffix, as text."""
    return names.shown(path.relative_to(folder).with_suffix("").as_posix())


def is_silent(audio_L: np.ndarray) -> bool:
    """Whether an audio clip in [-1, 1] never exceeds `SILENT_PEAK`; true of no samples at all."""
    return bool(np.abs(audio_L).max(initial=0.0) <= SILENT_PEAK)


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files with their relative names, as hexadecimal.

    Raises:
      FileNotFoundError: there is nothing.
    """
    if path.is_file():
        return _hash_of(path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    if not files:
        raise FileNotFoundError(f"{path}: nothing to hash")
    return hash_of_files({p.relative_to(path).as_posix(): p for p in files})


def hash_of_files(files: Mapping[str, Path]) -> str:
    """SHA-256 of files by name, independent of their order and of where they stand."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{_hash_of(files[name])}\n".encode())
    return whole.hexdigest()


def commit(folder: Path | None = None) -> str | None:
    """The commit of the source, with "+changes" if files differ from it; None without git.

    Args:
      folder: where to ask; default the folder of this package.
    """
    folder = Path(__file__).parent if folder is None else folder
    try:
        name = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return name + ("+changes" if changed else "")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that figures may depend on."""
    return {"python": platform.python_version(), **{p: metadata.version(p) for p in PACKAGES}}


def generator_scores(folder: Path) -> dict[str, Any]:
    """Returns what the generator wrote into `scores.json`.

    Its "settings", and figures of its "clips".

    {} of a folder without it, or with one of another tool: a file of this name may hold anything.
    """
    try:
        found = json.loads((folder / "scores.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def generator_clips(folder: Path) -> dict[str, dict[str, Any]]:
    """Name of a clip -> what the generator wrote of it into `scores.json`; {} as above."""
    clips = generator_scores(folder).get("clips")
    entries = clips.items() if isinstance(clips, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, dict)}


def generation_settings(folder: Path) -> dict[str, Any] | None:
    """Returns what the generator wrote of itself: seed, steps, sampler, guidance.

    None if it did not.
    """
    return generator_scores(folder).get("settings")


def audio_summary(files: Iterable[Path]) -> dict[str, Any]:
    """How many audio clips have which rate, and the shortest, median and longest one in seconds."""
    rates: dict[str, int] = {}
    lengths_s = []
    for path in files:
        try:
            rate, length_s = audio_io.rate_and_length(path)
        except Exception:  # no audio: of a protocol on images alone, or counted as unreadable
            continue
        rates[str(rate)] = rates.get(str(rate), 0) + 1
        lengths_s.append(length_s)
    quantiles = np.quantile(lengths_s, [0.0, 0.5, 1.0]).round(3).tolist() if lengths_s else []
    return {"sample_rates_hz": rates, "seconds_min_median_max": quantiles}


def of_system(
    folder: Path, paths: Mapping[str, Path], account: Account, checkpoint: Path | None = None
) -> dict[str, Any]:
    """The card's entry of one run of one system.

    Args:
      paths: name -> file, at least of what was scored.
      checkpoint: file or folder of the weights; None if they are not at hand (foreign audio clips).
    """
    files = {name: paths[name] for name in account.scored}
    return {
        "folder": folder.name,
        "sounds_sha256": hash_of_files(files),
        "checkpoint_sha256": None if checkpoint is None else content_hash(checkpoint),
        "generation": generation_settings(folder),
        "sound": audio_summary(files.values()),
        "items": account.record(),
    }


def write(
    path: Path,
    protocol: str,
    settings: Mapping[str, Any],
    systems: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """Writes the card as JSON and returns it.

    Args:
      protocol: name under which the figures are printed.
      settings: everything the protocol was run with.
      systems: name -> one `of_system` per run (seed).
    Raises:
      ValueError: no protocol; a number without one means nothing.
    """
    if not protocol:
        raise ValueError("no protocol, expected the name under which the figures are printed")
    card = {
        "protocol": protocol,
        "commit": commit(),
        "versions": versions(),
        "settings": dict(settings),
        "systems": {name: list(runs) for name, runs in systems.items()},
    }
    # settings of others may hold nan, which is no JSON
    path.write_text(json.dumps(remarks.plain(card), indent=1, allow_nan=False) + "\n")
    return card


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def some(names: Iterable[str], most: int = 3) -> str:
    """The first of some names, and whether there are more."""
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
