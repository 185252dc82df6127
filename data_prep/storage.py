"""Folders on this machine or in a store: videos come from one, shards go to one.

A path is used as it is. An address (`gs://bucket/set`, `s3://bucket/set`, `hdfs://...`) goes
through fsspec and needs the package of its store (gcsfs, s3fs, ...). Whatever is written appears
under its name only when it is complete.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
import dataclasses
import os
import pathlib
import secrets
import tempfile
from typing import Any

import fsspec

from foley_jax.media import files
from foley_jax.runtime import reasons

# stores that show a file only when its upload has ended; elsewhere a file is written beside its
# place and moved
WHOLE_UPLOADS = frozenset({"gs", "gcs", "s3", "s3a", "az", "abfs", "abfss", "memory"})
READ_AT_ONCE = 500  # small files asked of a store together


class StoreError(RuntimeError):
    """A store failed to give or take a file; trying again later may help."""


class Storage:
    """One folder.

    Args:
      where: path, or address with `://`.
    Raises:
      ValueError: an address of a kind that is not known or whose package is not installed.
    """

    def __init__(self, where: "str | os.PathLike[str] | Storage"):
        self.where = str(where) if isinstance(where, Storage) else os.fspath(where)
        scheme, mark, _ = self.where.partition("://")
        self.local = None if mark else pathlib.Path(self.where)
        self._whole_uploads = scheme in WHOLE_UPLOADS
        self._opened: tuple[fsspec.AbstractFileSystem, str] | None = None
        if mark:
            try:
                fsspec.get_filesystem_class(scheme)
            except (ImportError, ValueError) as error:
                raise ValueError(f"{self.where}: {error}") from error

    def __str__(self) -> str:
        return self.where if self.local is None else str(self.local)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # every process opens the store itself

    def _fs(self) -> fsspec.AbstractFileSystem:
        return self._open()[0]

    def _open(self) -> tuple[fsspec.AbstractFileSystem, str]:
        if self._opened is None:
            # other processes write there too: what was listed once is soon not true any more
            fs, root = fsspec.core.url_to_fs(self.where, use_listings_cache=False)
            self._opened = fs, root.rstrip("/")
        return self._opened

    def _path(self, name: str) -> str:
        return f"{self._open()[1]}/{name}"

    def make(self) -> None:
        """Makes the folder if it is missing."""
        if self.local is not None:
            self.local.mkdir(parents=True, exist_ok=True)
        else:
            self._fs().makedirs(self._open()[1], exist_ok=True)

    def is_folder(self) -> bool:
        """Whether it is there (in a store: holds something)."""
        if self.local is not None:
            return self.local.is_dir()
        fs, root = self._open()
        return fs.isdir(root)

    def find(
        self, suffixes: Sequence[str] | None = None, *, leave_out: "Storage | None" = None
    ) -> files.Found:
        """Names of the files in it and in its subfolders, relative, with forward slashes.

        See `files.find`. Broken links and pipes are among them: who reads them finds out.

        Args:
          suffixes: of the wanted files; None is every file.
          leave_out: a folder in it that is not searched.
        Returns:
          `paths` are the names, as text, sorted.
        """
        if self.local is not None:
            left_out = leave_out is not None and leave_out.local
            # written into the very folder, shards are no media: there is nothing to leave out
            if left_out and os.path.realpath(left_out) == os.path.realpath(self.local):
                left_out = None
            found = files.find([self.local], suffixes, leave_out=[left_out] if left_out else ())
            relative = sorted(path.relative_to(self.local).as_posix() for path in found)
            return dataclasses.replace(found, paths=relative)
        fs, root = self._open()
        inside = leave_out is not None and leave_out.where.startswith(f"{self.where}/")
        left_out = leave_out.where[len(self.where) + 1 :].rstrip("/") if inside else ""
        return files.sift((path[len(root) + 1 :] for path in fs.find(root)), suffixes, left_out)

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of the files directly in it, hidden ones too; empty without a folder."""
        if self.local is not None:
            if not self.local.is_dir():
                return {}
            with os.scandir(self.local) as entries:
                return {one.name: one.stat().st_size for one in entries if one.is_file()}
        fs, root = self._open()
        try:
            found = fs.ls(root, detail=True)
        except FileNotFoundError:
            return {}
        return {
            one["name"].rpartition("/")[2]: one["size"] for one in found if one["type"] == "file"
        }

    def read(self, name: str, at: int = 0, length: int | None = None) -> bytes:
        """Reads a file, or `length` bytes of it from `at` on.

        Raises:
          FileNotFoundError: no such file.
        """
        if self.local is not None:
            with (self.local / name).open("rb") as file:
                file.seek(at)
                return file.read(length)
        end = None if length is None else at + length
        return self._fs().cat_file(self._path(name), start=at, end=end)

    def read_many(self, names: Iterable[str]) -> Iterator[bytes]:
        """Contents of many small files, in order; a store is asked for many at once."""
        names = list(names)
        if self.local is not None:
            yield from (self.read(name) for name in names)
            return
        for first in range(0, len(names), READ_AT_ONCE):
            paths = [self._path(name) for name in names[first : first + READ_AT_ONCE]]
            found = self._fs().cat(paths)
            yield from (found[path] for path in paths)

    def write(self, name: str, data: bytes) -> None:
        """Writes a file, over an older one of that name."""
        if self.local is not None:
            part = self.local / part_name(name)
            part.write_bytes(data)
            os.replace(part, self.local / name)
        elif self._whole_uploads:
            self._fs().pipe_file(self._path(name), data)
        else:
            part = self._path(part_name(name))
            self._fs().pipe_file(part, data)
            self._fs().mv(part, self._path(name))

    def remove(self, name: str) -> None:
        """Removes a file if it is there."""
        if self.local is not None:
            (self.local / name).unlink(missing_ok=True)
            return
        with suppress(FileNotFoundError):
            self._fs().rm_file(self._path(name))

    @contextmanager
    def staging(self) -> Iterator[pathlib.Path]:
        """A folder of this machine to write files into before `publish`; the place if local."""
        if self.local is not None:
            self.make()
            yield self.local
            return
        with tempfile.TemporaryDirectory(prefix="foley-") as folder:
            yield pathlib.Path(folder)

    def publish(self, staging: pathlib.Path, name: str) -> None:
        """Brings a finished file from the desk to its place."""
        if self.local is not None:
            return
        if self._whole_uploads:
            self._fs().put_file(str(staging / name), self._path(name))
        else:
            part = self._path(part_name(name))
            self._fs().put_file(str(staging / name), part)
            self._fs().mv(part, self._path(name))

    @contextmanager
    def fetched(self, *names: str) -> Iterator[pathlib.Path]:
        """A folder of this machine where the named files lie under the same names, if they exist.

        Raises:
          StoreError: the store did not answer as it should; files it does not have or does not
            allow to be read are only missing.
        """
        if self.local is not None:
            yield self.local
            return
        with tempfile.TemporaryDirectory(prefix="foley-") as folder:
            for name in names:
                to = pathlib.Path(folder, name)
                to.parent.mkdir(parents=True, exist_ok=True)
                try:
                    self._fs().get_file(self._path(name), str(to))
                except (FileNotFoundError, PermissionError):
                    to.unlink(missing_ok=True)
                except Exception as error:  # every store has errors of its own
                    raise StoreError(f"{self.where}/{name}: {reasons.of(error)}") from error
            yield pathlib.Path(folder)


def part_name(name: str) -> str:
    """Name of a file while it is written; no two writers share one, on any machine."""
    return f".{name}.{secrets.token_hex(6)}.part"
