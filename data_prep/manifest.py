"""The list of clips to make: JSON lines, one per clip, written by `data_prep.sources`.

    {"id": "abc_000030", "file": "abc_000030.mp4", "split": "train",
     "start_s": 0.0, "end_s": null, "labels": ["playing harp"]}

`file` is relative to the videos' folder, with forward slashes. `end_s` null means to the end of the
file. A stretch longer than a clip is cut as a whole file is. `labels` is a list of names, or an
object whose values are names or lists of names. Manifests of one folder may be joined with `cat`.
"""

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import json
import math
import pathlib

from etils import epath

Labels = Mapping[str, str | list[str]] | list[str]
KEYS = ("id", "file", "split", "start_s", "end_s", "labels")


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One stretch of one file.

    Attributes:
      id: unique in the manifest.
      file: path relative to the videos' folder, with forward slashes.
      split: where its clips go, e.g. "train".
      start_s, end_s: its place in the file; `end_s` None is the end of the file.
      labels: names, or kinds of names -> names.
    """

    id: str
    file: str
    split: str
    start_s: float = 0.0
    end_s: float | None = None
    labels: Labels = dataclasses.field(default_factory=list)

    def __post_init__(self):
        for name in ("id", "file", "split"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name} is {getattr(self, name)!r}, wanted a text")
        path = pathlib.PurePosixPath(self.file)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"file is {self.file!r}, wanted a path inside the videos' folder")
        if "/" in self.split or "-" in self.split:
            raise ValueError(f"split is {self.split!r}, wanted a name without '/' and '-'")
        if not _is_time(self.start_s):
            raise ValueError(f"start_s is {self.start_s!r}, wanted seconds from 0 on")
        if self.end_s is not None and not (_is_time(self.end_s) and self.end_s > self.start_s):
            raise ValueError(
                f"end_s is {self.end_s!r}, wanted null or seconds after start_s {self.start_s}"
            )
        if not all(isinstance(name, str) for name in self.label_names):
            raise ValueError(f"labels are {self.labels!r}, wanted names, or kinds -> names")

    @property
    def label_names(self) -> list[str]:
        """All labels in one list, in order, each once."""
        kinds = self.labels.values() if isinstance(self.labels, Mapping) else [self.labels]
        names = [n for kind in kinds for n in (kind if isinstance(kind, list) else [kind])]
        return list(dict.fromkeys(names))


def _is_time(value: object) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0


def read(path: epath.PathLike) -> list[Entry]:
    """Reads a manifest; empty lines are left out.

    Raises:
      FileNotFoundError: no such file; the message says how to make one.
      ValueError: a line is not an entry, or an id comes twice; the message gives the line.
    """
    path = epath.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such manifest; make one with `python -m data_prep.sources.NAME`, "
            "or `python -m data_prep.sources.folder VIDEOS`"
        )
    entries, lines = [], {}
    for number, line in _lines(path):
        try:
            fields = json.loads(line)
            unknown = set(fields) - set(KEYS)
            if unknown:
                raise ValueError(f"unknown keys {sorted(unknown)}, wanted {', '.join(KEYS)}")
            entry = Entry(**fields)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        before = lines.setdefault(entry.id, number)
        if before != number:
            raise ValueError(
                f"{path}, line {number}: id {entry.id!r} was already in line {before}; "
                "every clip needs an id of its own"
            )
        entries.append(entry)
    return entries


def _lines(path: epath.Path) -> Iterator[tuple[int, str]]:
    with path.open("r") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def write(path: epath.PathLike, entries: Iterable[Entry]) -> int:
    """Writes a manifest, which appears only when complete; returns the number of entries.

    Raises:
      ValueError: an id comes twice.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{path.name}.part"
    seen: set[str] = set()
    with part.open("w") as file:
        for entry in entries:
            if entry.id in seen:
                raise ValueError(f"id {entry.id!r} comes twice; every clip needs an id of its own")
            seen.add(entry.id)
            fields = {key: getattr(entry, key) for key in KEYS}
            file.write(json.dumps(fields) + "\n")
    part.replace(path)
    return len(seen)
