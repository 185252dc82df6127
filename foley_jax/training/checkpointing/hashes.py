"""SHA-256 of the files of an exported model, in the form of the command `sha256sum`."""

from collections.abc import Iterable
import hashlib
import re

from etils import epath

FILE = "SHA256SUMS"
_CHUNK_BYTES = 1 << 22
_LINE = re.compile(r"(?P<sum>[0-9a-f]{64}) [ *](?P<name>[^/\\]+)")


def write(folder: epath.PathLike, names: Iterable[str]) -> None:
    """Writes SHA256SUMS of these files of a folder into it."""
    folder = epath.Path(folder)
    lines = (f"{_sum(folder / name)}  {name}\n" for name in names)
    (folder / FILE).write_text("".join(lines))


def check(folder: epath.PathLike) -> None:
    """Compares the files of a folder with its SHA256SUMS, if it has one.

    Raises:
      ValueError: a file is not there or differs, which the message names, or the list is damaged.
    """
    folder = epath.Path(folder)
    if not (folder / FILE).exists():
        return
    try:
        lines = (folder / FILE).read_text().splitlines()
    except ValueError as error:  # no text
        raise ValueError(f"{folder / FILE} is damaged; copy it again") from error
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{folder / FILE} is damaged at {line[:80]!r}; copy it again")
        file = folder / match["name"]
        if not file.exists():
            raise ValueError(f"{file} is missing, {FILE} lists it; copy the whole folder again")
        found = _sum(file)
        if found != match["sum"]:
            raise ValueError(
                f"{file} is damaged or was changed: its SHA-256 is {found[:12]}..., {FILE} has "
                f"{match['sum'][:12]}...; copy it again, or remove {FILE} if you changed it"
            )


def _sum(file: epath.Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
