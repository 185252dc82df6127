"""Which files are media, and the one search through folders of them.

found = files.find(["my_videos/", "one.mp4"], files.VIDEO_SUFFIXES, leave_out=["my_videos/out"])
found.tell()  # one line on stderr: "passed over: 3 hidden, 2 of other kinds (.txt, .jpg)"
for path in found: ...
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import os
import pathlib
import sys

from foley_jax.media import names

# Names of files that are taken for media where a folder is searched, in any case (.MP4); the usual
# ones first
AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus", ".oga", ".aac"),
    *(".aif", ".aiff", ".wma", ".ac3", ".mka", ".caf"),
)
VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".flv", ".wmv", ".3gp", ".ogv"),
    *(".3g2", ".asf", ".f4v", ".vob", ".mxf"),
)
TOLD = 3  # so many examples of what was passed over are named


@dataclasses.dataclass
class Found:
    """Findings of a search, and what it passed over; iterates over the paths.

    Attributes:
      paths: the files in order.
      hidden: files and folders whose names begin with a dot.
      other_kinds: suffix -> how many files that are no media of the wanted kind.
      left_out: wanted files in the output folder.
      loops: links to a folder that they lie in.
      doubles: names of what was found already, by links or by being given twice.
      broken: links to nowhere. Those that are named like a wanted file are among `paths` instead:
        who reads them finds out.
      unreadable: folder -> why it could not be listed.
      namesakes: files of which the caller takes only one.
    """

    paths: list[pathlib.Path] = dataclasses.field(default_factory=list)
    hidden: int = 0
    other_kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    left_out: int = 0
    loops: list[str] = dataclasses.field(default_factory=list)
    doubles: list[str] = dataclasses.field(default_factory=list)
    broken: list[str] = dataclasses.field(default_factory=list)
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    namesakes: list[str] = dataclasses.field(default_factory=list)

    def __iter__(self) -> Iterator[pathlib.Path]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def remark(self) -> str:
        """One line about everything that was passed over; empty if nothing was."""
        kinds = [kind or "without suffix" for kind, _ in self.other_kinds.most_common()]
        unreadable = [f"{folder}: {why}" for folder, why in self.unreadable.items()]
        told = [
            _told(self.hidden, "hidden", "hidden"),
            _told(self.other_kinds.total(), "of another kind", "of other kinds", kinds),
            _told(self.left_out, "in the output folder", "in the output folder"),
            _told(len(self.loops), "link loop", "link loops", self.loops),
            _told(len(self.doubles), "found already", "found already", self.doubles),
            _told(len(self.broken), "broken link", "broken links", self.broken),
            _told(len(unreadable), "unreadable folder", "unreadable folders", unreadable),
            _told(len(self.namesakes), "namesake", "namesakes", self.namesakes),
        ]
        told = ", ".join(filter(None, told))
        return names.shown(f"passed over: {told}") if told else ""

    def tell(self) -> None:
        """Says the remark, if there is one, on stderr."""
        if remark := self.remark():
            print(remark, file=sys.stderr)


def _told(count: int, one: str, many: str, examples: Sequence[str] = ()) -> str:
    if not count:
        return ""
    some = ", ".join(examples[:TOLD]) + (", ..." if len(examples) > TOLD else "")
    return f"{count} {one if count == 1 else many}" + (f" ({some})" if some else "")


def find(
    inputs: Iterable[str | os.PathLike],
    suffixes: Sequence[str] | None,
    *,
    leave_out: Iterable[str | os.PathLike] = (),
    same_once: bool = True,
) -> Found:
    """Files as given, and the wanted ones of folders and their subfolders.

    In folders, names that begin with a dot are passed over (Mac's `._a.mp4` too). Links are
    followed; no folder is searched twice, whatever links lead to it, and a link to a folder that
    it lies in is passed over.

    Args:
      inputs: files and folders; a file is taken whatever its name.
      suffixes: lower case, with the dot; of the wanted files in any case. None is every file.
      leave_out: folders that are not searched: where the caller will write.
      same_once: of several names of one file, by links, only one counts: that of the file itself
        if it is among them, else the first. False where the names themselves are what matters.
    Returns:
      The paths in the order of the inputs, sorted inside each folder.
    Raises:
      ValueError: an input is a folder to be left out.
    """
    left_out = {os.path.realpath(folder): os.fspath(folder) for folder in leave_out}
    search = _Search(suffixes, left_out, same_once)
    for item in map(pathlib.Path, inputs):
        if os.path.isdir(item):
            search.folder(str(item))
        else:
            search.given(str(item))
    return search.found


def sift(relative: Iterable[str], suffixes: Sequence[str] | None, leave_out: str = "") -> Found:
    """`find` among the names of a store, which knows neither folders nor links.

    Args:
      relative: names with forward slashes.
      suffixes: as of `find`.
      leave_out: name of a folder to be left out; "" is none.
    Returns:
      `paths` are the names, as text.
    """
    found = Found()
    for name in sorted(relative):
        if any(part.startswith(".") for part in name.split("/")):
            found.hidden += 1
        elif not _is_wanted(name, suffixes):
            found.other_kinds[_suffix(name)] += 1
        elif leave_out and name.startswith(f"{leave_out}/"):
            found.left_out += 1
        else:
            found.paths.append(name)
    return found


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_wanted(name: str, suffixes: Sequence[str] | None) -> bool:
    return suffixes is None or _suffix(name) in suffixes


def _is_inside(real: str, folders: Iterable[str]) -> bool:
    """Whether a real path is one of these, or below one of them."""
    return any(real == one or real.startswith(one.rstrip(os.sep) + os.sep) for one in folders)


@dataclasses.dataclass(frozen=True, order=True)
class _File:
    """A wanted file: those that were reached without links come first."""

    by_link: bool
    path: pathlib.Path
    real: str = dataclasses.field(compare=False)


class _Search:
    """One `find`: what it has seen so far."""

    def __init__(self, suffixes: Sequence[str] | None, leave_out: dict[str, str], same_once: bool):
        self.found = Found()
        self._suffixes, self._leave_out, self._same_once = suffixes, leave_out, same_once
        self._files: set[str] = set()  # real paths
        self._taken: set[str] = set()  # names, as absolute paths
        self._folders: set[str] = set()  # real paths

    def given(self, path: str) -> None:
        """A file that the caller names."""
        name = os.path.abspath(path)
        if name in self._taken:
            self.found.doubles.append(path)
            return
        self._take(path, os.path.realpath(path))

    def folder(self, root: str) -> None:
        """Everything below a folder.

        Real folders come before those that links lead to, so that what has a name without links
        keeps it.
        """
        real = os.path.realpath(root)
        if real in self._leave_out:
            raise ValueError(
                f"{root} is to be searched, and the results go there too "
                f"({self._leave_out[real]}): they would be inputs of the next run; give another "
                f"output folder, for example {os.path.join(root, 'out')}, which is not searched"
            )
        # a folder inside the output folder that is named as input is meant
        leave_out = [one for one in self._leave_out if not _is_inside(real, [one])]
        files: list[_File] = []
        folders, links = collections.deque([(root, real, False)]), collections.deque()
        while folders or links:
            path, real, by_link = (folders or links).popleft()
            if _is_inside(real, leave_out):
                self.found.left_out += len(find([real], self._suffixes))
            elif real not in self._folders:
                self._folders.add(real)
                self._list(path, real, by_link, leave_out, files, folders, links)
            elif by_link:
                self.found.doubles.append(path)
        for file in self._each_once(files):
            self._take(str(file.path), file.real)

    def _list(
        self,
        folder: str,
        folder_real: str,
        by_link: bool,
        leave_out: list[str],
        files: list[_File],
        folders: collections.deque,
        links: collections.deque,
    ) -> None:
        """Sorts what is directly in a folder into what to take and what to search."""
        try:
            with os.scandir(folder) as entries:
                entries = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.found.unreadable[folder] = error.strerror or str(error)
            return
        for entry in entries:
            is_link = entry.is_symlink()
            real = (
                os.path.realpath(entry.path) if is_link else os.path.join(folder_real, entry.name)
            )
            if entry.name.startswith("."):
                self.found.hidden += 1
            elif is_link and _is_inside(folder_real, [real]):
                self.found.loops.append(entry.path)
            elif os.path.isdir(entry.path) if is_link else entry.is_dir():
                (links if is_link else folders).append((entry.path, real, by_link or is_link))
            elif _is_wanted(entry.name, self._suffixes):
                if _is_inside(real, leave_out):
                    self.found.left_out += 1
                else:
                    files.append(_File(by_link or is_link, pathlib.Path(entry.path), real))
            elif is_link and not os.path.exists(entry.path):
                self.found.broken.append(entry.path)
            else:
                self.found.other_kinds[_suffix(entry.name)] += 1

    def _each_once(self, files: list[_File]) -> list[_File]:
        """Without further names of one file, by path."""
        kept = []
        for file in sorted(files):
            is_known = self._same_once and file.real in self._files
            if is_known or os.path.abspath(file.path) in self._taken:
                self.found.doubles.append(str(file.path))
                continue
            self._files.add(file.real)
            kept.append(file)
        return sorted(kept, key=lambda file: file.path)

    def _take(self, path: str, real: str) -> None:
        self._files.add(real)
        self._taken.add(os.path.abspath(path))
        self.found.paths.append(pathlib.Path(path))
