"""Names of files as text: any that a file system allows can be shown, and clips get their own."""

from collections.abc import Container, Iterator, Mapping, Sequence
import itertools
import os
import pathlib
import re
import unicodedata

# files beside the clips of a folder that are named like a clip's
RESERVED = ("contact_sheet",)
_RANK = re.compile(r"\.best\d+$")  # of the second best clip of an input, and so on
_NO_TEXT = re.compile("[\ud800-\udfff]")


def shown(text: str) -> str:
    r"""The text with every byte that is no UTF-8 written as `\xe9`: what any output can take.

    Python keeps such bytes of file names as lone surrogates, at which a strict stream, or the
    writer of a text file, raises UnicodeEncodeError.
    """
    return _NO_TEXT.sub(_escaped, text)


def _escaped(match: re.Match) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def output_names(
    inputs: Sequence[pathlib.Path],
    recorded: Mapping[str, str] | None = None,
    kept: Container[str] = (),
) -> list[str]:
    """A name per input for what is made of it, as many as there are inputs.

    That is the file's stem, with a number where several would have it: x/hit.mp4 and y/hit.mp4 are
    hit and hit_2. No two are equal for a file system that ignores case or the spelling of accents,
    and none is what another's further clips are called (a.best2 beside a).

    Args:
      inputs: different paths.
      recorded: name -> the input that it was given to by earlier runs. An input keeps its name,
        whatever comes beside it, and also where its folder was moved.
      kept: the recorded names that stay in use though their inputs are not among these.
    """
    recorded = recorded or {}
    names = _kept_names(inputs, recorded)
    taken = _Taken()
    for name in (*names.values(), *(name for name in recorded if name in kept), *RESERVED):
        taken.add(name)
    new = [path for path in inputs if path not in names]
    # a.best2 must not push a away, which is why it comes last
    for path in sorted(new, key=lambda path: bool(_RANK.search(path.stem))):
        if taken.add(path.stem):
            names[path] = path.stem
    for path in new:
        if path not in names:
            numbered = (f"{path.stem}_{number}" for number in itertools.count(2))
            names[path] = next(name for name in numbered if taken.add(name))
    return [names[path] for path in inputs]


class _Taken:
    """Names that are in use, as a file system may compare them."""

    def __init__(self):
        self._names: set[str] = set()
        self._ranked: set[str] = set()  # a, where a.best2 is in use

    def add(self, name: str) -> bool:
        """Takes a name; False if it is in use, or another's outputs are called so."""
        name = unicodedata.normalize("NFC", name).casefold()
        whose = _RANK.sub("", name)
        if name in self._names or name in self._ranked or whose in self._names:
            return False
        self._names.add(name)
        if whose != name:
            self._ranked.add(whose)
        return True


def _kept_names(
    inputs: Sequence[pathlib.Path], recorded: Mapping[str, str]
) -> dict[pathlib.Path, str]:
    """The inputs that an earlier run has named, and how."""
    names: dict[pathlib.Path, str] = {}
    given: set[str] = set()
    for name, path in _claims(inputs, recorded):
        # what would be overwritten by the further clips of another is named anew
        is_free = name not in given and (not _RANK.search(name) or _RANK.sub("", name) not in given)
        if path not in names and is_free:
            names[path] = name
            given.add(name)
    return names


def _claims(
    inputs: Sequence[pathlib.Path], recorded: Mapping[str, str]
) -> Iterator[tuple[str, pathlib.Path]]:
    """(recorded name, input that may have it), the surest first."""
    # names before what links make of them: two links to one file are two inputs
    for key in (os.path.abspath, os.path.realpath):
        by_key = {key(path): path for path in inputs}
        for name, video in recorded.items():
            if (path := by_key.get(key(video))) is not None:
                yield name, path
    # a path that leads nowhere from here: its folder was moved, or it was given from elsewhere
    lost = [(name, pathlib.PurePath(v)) for name, v in recorded.items() if not os.path.lexists(v)]
    by_file: dict[str, list[pathlib.Path]] = {}
    for path in inputs if lost else ():
        by_file.setdefault(path.name, []).append(path)
    claims = [(name, v, path) for name, v in lost for path in by_file.get(v.name, ())]
    for name, _, path in sorted(claims, key=lambda claim: -_shared_parts(*claim[1:])):
        yield name, path


def _shared_parts(one: pathlib.PurePath, other: pathlib.PurePath) -> int:
    """How many parts two paths have in common, counted from their ends."""
    pairs = zip(reversed(one.parts), reversed(other.parts))
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
