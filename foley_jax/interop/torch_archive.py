"""Reads files of `torch.save` without PyTorch, and without running code in them.

Both formats: the zip file of PyTorch 1.6 and later (a pickle that describes dicts of tensors, and
one record of raw numbers for every storage, each with a checksum that is compared), and the row of
pickles of earlier ones, which has no checksums. Numbers stay in the file, mapped into memory, until
they are asked for.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import io
import mmap
from pathlib import Path
import pickle
import pickletools
import struct
from typing import Any
import zipfile
import zlib

import numpy as np

from foley_jax.interop import torch_pickle

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LOCAL_HEADER = 30  # bytes of a zip entry before its name
_ENCRYPTED = 1  # bit of a zip entry's flags


@dataclasses.dataclass(frozen=True)
class Content:
    """Contents of a file.

    Attributes:
      value: dicts, lists, numbers, texts, `torch_pickle.Tensor`s and `torch_pickle.Beside`s.
      beside: full names of classes whose objects were passed over.
      has_checksums: whether damage to the numbers is noticed.
    """

    value: Any
    beside: tuple[str, ...]
    has_checksums: bool


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Makes whatever a damaged file can cause one `ValueError` in words that names the file."""
    try:
        yield
    except torch_pickle.Refused as error:
        raise ValueError(f"{path} is refused: {error}") from error
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} is not in the zip format of torch.save (is it whole? download or copy it "
            f"again): {error}"
        ) from error
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        RuntimeError,  # zipfile, of what it does not know
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{path} is not a readable file of torch.save; it seems damaged, download or copy it "
            f"again ({what})"
        ) from error


def is_legacy(begin: bytes) -> bool:
    """Whether a file begins as `torch.save` did before PyTorch 1.6."""
    return begin[:1] == b"\x80" and begin[2:14] == b"\x8a\x0a" + _LEGACY_MAGIC.to_bytes(
        10, "little"
    )


def read_zip(path: Path) -> Content:
    """A file in PyTorch's zip format.

    Raises:
      ValueError: another format, a damaged or cut off file, or a pickle with code in it.
    """
    with naming(path), zipfile.ZipFile(path) as archive:
        return _Archive(path, archive).load()


class _Archive:
    def __init__(self, path: Path, archive: zipfile.ZipFile):
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if any(name.endswith("/constants.pkl") for name in names):
            raise torch_pickle.Refused(
                "it is a TorchScript archive, a program with its weights. Load it where you trust "
                "it, torch.jit.load(FILE).state_dict(), and save that with torch.save or "
                "safetensors.torch.save_file"
            )
        if len(pickles) != 1:
            shown = torch_pickle.names(names)
            raise torch_pickle.Refused(
                f"it is a zip file with {len(pickles)} data.pkl, expected one as torch.save "
                f"writes; it holds {shown or 'nothing'}. If it is a packed folder, unpack it"
            )
        self._entries = {info.filename: info for info in archive.infolist()}
        # torch.serialization.set_crc32_options(False) writes 0 everywhere
        self._has_checksums = any(info.CRC for info in archive.infolist())
        self._root = pickles[0].removesuffix("data.pkl")
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        order = f"{self._root}byteorder"
        self._big = order in names and bytes(self._record(order)).strip() == b"big"
        self._storages: dict[str, torch_pickle.Storage] = {}

    def load(self) -> Content:
        """Returns what the archive holds."""
        data = bytes(self._record(f"{self._root}data.pkl"))
        reader = torch_pickle.Reader(io.BytesIO(data), self._storage)
        value = reader.load()
        return Content(value, tuple(reader.beside), self._has_checksums)

    def _storage(self, kind: str, key: str, count: int) -> torch_pickle.Storage:
        if key not in self._storages:
            name = f"{self._root}data/{key}"
            if name not in self._entries:
                raise torch_pickle.Refused(f"it lacks the numbers {name}; is it whole?")
            size = self._entries[name].file_size
            if kind in torch_pickle.NUMBERS:
                size, left = divmod(size, np.dtype(torch_pickle.NUMBERS[kind]).itemsize)
                count = -1 if left else size
            read = functools.partial(self._record, name)
            self._storages[key] = torch_pickle.Storage(kind, count, read, big=self._big)
        return self._storages[key]

    def _record(self, name: str) -> memoryview:
        """The bytes of a record, where they lie in the file."""
        info = self._entries[name]
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED:
            # torch.save never packs; a bomb would
            raise torch_pickle.Refused(f"{name} is compressed or encrypted, expected plain records")
        begin = info.header_offset + _LOCAL_HEADER
        header = self._map[info.header_offset : begin]
        if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
            raise torch_pickle.Refused(f"{name} does not lie where the file says; it is damaged")
        name_size, extra_size = struct.unpack("<HH", header[26:])
        if self._map[begin : begin + name_size] != info.orig_filename.encode():
            raise torch_pickle.Refused(f"{name} does not lie where the file says; it is damaged")
        begin += name_size + extra_size
        data = memoryview(self._map)[begin : begin + info.file_size]
        if len(data) != info.file_size or (self._has_checksums and zlib.crc32(data) != info.CRC):
            raise torch_pickle.Refused(
                f"{name} does not match its checksum: the file is damaged, download or copy it "
                "again"
            )
        return data


def read_legacy(path: Path) -> Content:
    """A file as PyTorch wrote it before 1.6, or with `_use_new_zipfile_serialization=False`.

    Raises:
      ValueError: another format, a file that is cut off, or a pickle with code in it.
    """
    with naming(path), path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if not is_legacy(data[:14]):
            raise torch_pickle.Refused(
                "it is a plain pickle, not a file of torch.save: save the state dict with "
                "torch.save or safetensors.torch.save_file"
            )
        return _Legacy(data).load()


class _Legacy:
    def __init__(self, data: mmap.mmap):
        self._map = data
        self._storages: dict[str, torch_pickle.Storage] = {}
        self._begins: dict[str, int] = {}  # of the numbers of each storage
        self._big = False

    def load(self) -> Content:
        """Returns what the file holds.

        Pickles one after another, then the numbers of the storages.
        """
        _, version, system = (self._pickle()[0] for _ in range(3))
        if version != 1001 or not isinstance(system, dict):
            raise torch_pickle.Refused(f"it is of version {version!r}, expected 1001")
        self._big = not system.get("little_endian", True)
        value, beside = self._pickle()
        keys, _ = self._pickle()
        lost = set(self._storages) - set(map(str, keys))
        if lost:
            raise torch_pickle.Refused(f"it lacks the numbers of {len(lost)} storages")
        for key in map(str, keys):
            self._skip(key)
        return Content(value, beside, has_checksums=False)

    def _pickle(self) -> tuple[Any, tuple[str, ...]]:
        """The next pickle. Nothing vouches for its bytes, so they are looked through first."""
        begin = self._map.tell()
        for code, argument, _ in pickletools.genops(self._map):
            # a number out of place would make the memo as long as it says
            if "PUT" in code.name and argument > self._map.size():
                raise torch_pickle.Refused("its pickle is damaged")
        data = self._map[begin : self._map.tell()]
        reader = torch_pickle.Reader(io.BytesIO(data), self._storage)
        return reader.load(), tuple(reader.beside)

    def _storage(self, kind: str, key: str, count: int) -> torch_pickle.Storage:
        if key not in self._storages:
            if not isinstance(count, int) or not 0 <= count <= self._map.size():
                raise torch_pickle.Refused(f"storage {key} holds {count!r} numbers; is it whole?")
            if kind not in torch_pickle.NUMBERS:
                raise torch_pickle.Refused(
                    f"it stores {kind} numbers, which NumPy does not know; save it in float32"
                )
            read = functools.partial(self._numbers, key)
            self._storages[key] = torch_pickle.Storage(
                kind, count, read, big=self._big, vouched=False
            )
        return self._storages[key]

    def _skip(self, key: str) -> None:
        """Notes where a storage lies; its length stands before it."""
        storage, head = self._storages.get(key), self._map.read(8)
        if storage is None:
            raise torch_pickle.Refused(f"it has numbers for an unknown storage {key}")
        count = int.from_bytes(head, "big" if self._big else "little", signed=True)
        if len(head) < 8 or count != storage.count:
            raise torch_pickle.Refused(
                f"storage {key} has {count} of {storage.count} numbers; is the file whole?"
            )
        self._begins[key] = self._map.tell()
        end = self._map.tell() + self._size(storage)
        if end > self._map.size():
            raise torch_pickle.Refused(
                f"it is cut off: storage {key} ends at byte {end} of {self._map.size()}"
            )
        self._map.seek(end)

    def _size(self, storage: torch_pickle.Storage) -> int:
        return storage.count * np.dtype(torch_pickle.NUMBERS[storage.kind]).itemsize

    def _numbers(self, key: str) -> memoryview:
        begin = self._begins[key]
        return memoryview(self._map)[begin : begin + self._size(self._storages[key])]
