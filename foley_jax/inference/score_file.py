"""`scores.json` of an output folder: what a batch has finished, and goes on from."""

from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

from foley_jax.media import names as name_lib


class ScoreFile:
    """`scores.json`: one entry per finished video; what makes a batch resumable.

    While a batch runs, its entries are lines of `scores.INDEX.jsonl`, a file for each process;
    `merge` makes `scores.json` of what all processes, and runs that were killed, have left.

    Attributes:
      done: the entries there are, made with the same settings, by name.
      videos: name -> video of all entries that this folder has, whatever their settings.
    """

    def __init__(self, folder: Path, settings: dict, index: int = 0):
        # as it comes back from a file: tuples are lists
        self.path, self.settings = folder / "scores.json", json.loads(json.dumps(settings))
        self._part = folder / f"scores.{index}.jsonl"
        self.videos = self._named()
        self._own = self._lines(self._part)
        self._open = False
        self.done = self._found()

    def add(self, name: str, entry: dict) -> None:
        """Remembers a video, whatever happens next."""
        self.done[name] = self._own[name] = entry
        if self._open:
            with self._part.open("a") as file:
                file.write(json.dumps([name, entry]) + "\n")
            return
        if self._stored() is None:
            self.path.unlink(missing_ok=True)  # files of its settings are being overwritten
        lines = [{"settings": self.settings}, *map(list, self._own.items())]
        _replace(self._part, "".join(json.dumps(line) + "\n" for line in lines))
        self._open = True

    def merge(self) -> None:
        """Writes `scores.json`, for all processes: when they have ended, and only one of them."""
        self.done = self._found()
        whole = {"settings": self.settings, "clips": dict(sorted(self.done.items()))}
        if self.done:
            write_json(self.path, whole)
        for part in self._parts():
            part.unlink()
        self._open = False

    def _found(self) -> dict[str, dict]:
        found = dict(self._stored() or {})
        for part in self._parts():
            found |= self._lines(part)
        return found

    def _named(self) -> dict[str, str]:
        entries = json.loads(_text(self.path) or "{}").get("clips", {})
        for part in self._parts():
            entries |= dict(_whole_lines(part)[1:])
        return {name: entry["video"] for name, entry in entries.items() if "video" in entry}

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob("scores.*.jsonl"))

    def _stored(self) -> dict[str, dict] | None:
        """Entries of `scores.json`; None if there is none or it is of other settings."""
        stored = json.loads(_text(self.path) or "{}")
        return stored["clips"] if stored.get("settings") == self.settings else None

    def _lines(self, part: Path) -> dict[str, dict]:
        """Entries of a process's file; none if it is of other settings."""
        first, *rest = _whole_lines(part) or [{}]
        return dict(rest) if first.get("settings") == self.settings else {}


def names_beside(folders: Sequence[ScoreFile], videos: Sequence[Path]) -> list[str]:
    """A name per video, the same in all folders and beside what they have."""
    recorded = {name: video for one in reversed(folders) for name, video in one.videos.items()}
    kept = {name for one in folders for name in one.done}
    return name_lib.output_names(videos, recorded, kept)


def _whole_lines(part: Path) -> list[Any]:
    """Returns what is in a process's file: its settings, and [name, entry] of every video."""
    text = _text(part)
    # a killed process may leave half a line
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _text(path: Path) -> str:
    """Returns what is in a file that another process may take away; nothing if there is none."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def write_json(path: Path, value: Any) -> None:
    """Writes a file that is whole whenever somebody reads it."""
    _replace(path, json.dumps(value, indent=1))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
