"""Named tensors in PyTorch's file format, read and written without PyTorch.

A `.pth` file of `torch.save` is an uncompressed zip: a pickle that describes dicts of tensors, and
one record of raw numbers for every storage. Reading builds nothing but dicts, strings, numbers and
arrays: the pickle's other names are refused, as by `torch.load(path, weights_only=True)`. Writing
puts down what `torch.load` of PyTorch 1.6 or later reads, with `weights_only=True` as well.

Weight files go through `foley_jax.torch_files`, which also knows the older formats.
"""

from collections.abc import Callable, Mapping
import io
import math
import os
from pathlib import Path
import pickle
import struct
from typing import Any, BinaryIO
import zipfile

import numpy as np

Tensors = Mapping[str, "np.ndarray | Tensors"]

_ROOT = "archive"
_NOTE = "extra/note"
_ALIGNMENT = 64  # bytes, as torch.save lays storages for mapping them into memory
_ALIGNING = b"FB"  # its id of the extra field that fills up to there
_LOCAL_HEADER = 30  # bytes of a zip entry before its name
_STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",  # bits; NumPy has no bfloat16
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_STORAGE_OF = {
    np.dtype(kind): name for name, kind in _STORAGES.items() if name != "BFloat16Storage"
}


class _Refused(ValueError):
    """Something that is no dict of tensors."""


def read(path: Path) -> dict[str, Any]:
    """The dict of tensors (or of dicts of tensors) that a file holds.

    Returns:
      Keys in the order of the file; read-only arrays, views where tensors share a storage;
      bfloat16 becomes float32.
    Raises:
      FileNotFoundError: no such file.
      ValueError: another format, a file that is cut off, or a pickle that names anything but
        tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            found = _Reader(archive).load()
        _check("", found)
    except _Refused as error:
        raise ValueError(f"{path} is refused: {error}") from error
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} is not in the zip format of torch.save (is it whole?): {error}"
        ) from error
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"{path} is not a readable file of torch.save: {error}") from error
    return found


def _check(where: str, value: Any) -> None:
    """Refuses whatever is not a dict of tensors, at any depth."""
    if where and isinstance(value, np.ndarray):
        return
    if not isinstance(value, dict):
        what = f"{where!r} is" if where else "it holds"
        raise _Refused(f"{what} a {type(value).__name__}, expected a dict of tensors")
    for key, inner in value.items():
        if not isinstance(key, str):
            raise _Refused(f"a key is {key!r}, expected a name")
        _check(f"{where}/{key}" if where else key or "''", inner)


class _Name:
    """What a name in the pickle stands for; the pickle can call it, and change nothing in it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        object.__setattr__(self, "_call", call)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused(f"its pickle sets {name!r} of a function")

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)


class _StorageType:
    """A kind of numbers; nothing to call."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        object.__setattr__(self, "name", name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused(f"its pickle sets {name!r} of a type")


class _Reader(pickle.Unpickler):
    """Unpickles `data.pkl` of an archive."""

    def __init__(self, archive: zipfile.ZipFile):
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise _Refused(f"it is a zip file with {len(pickles)} data.pkl, expected one")
        super().__init__(io.BytesIO(_record(archive, pickles[0])))
        self._archive, self._root = archive, pickles[0].removesuffix("data.pkl")
        order = f"{self._root}byteorder"
        self._big = order in names and _record(archive, order).strip() == b"big"
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Name(_rebuilt)
        if (module, name) == ("collections", "OrderedDict"):
            return _Name(_empty)
        if module == "torch" and name in _STORAGES:
            return _StorageType(name)
        raise _Refused(
            f"its pickle names {module}.{name}, and calling that could run code; expected tensors"
        )

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage_type, key, _, count = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise _Refused(f"it refers to a {kind!r}, expected storages of numbers")
        if key not in self._storages:
            self._storages[key] = self._storage(storage_type.name, key)
        # the number of elements is said again wherever the storage is used
        if len(self._storages[key]) != count:
            raise _Refused(f"storage {key} has {len(self._storages[key])} of {count} numbers")
        return self._storages[key]

    def _storage(self, name: str, key: str) -> np.ndarray:
        kind = np.dtype(_STORAGES[name]).newbyteorder(">" if self._big else "<")
        data = np.frombuffer(_record(self._archive, f"{self._root}data/{key}"), kind)
        data = data.astype(kind.newbyteorder("="), copy=False)
        if name == "BFloat16Storage":  # the upper half of a float32
            data = (data.astype(np.uint32) << 16).view(np.float32)
        data.flags.writeable = False
        return data


def _record(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:  # torch.save never packs; a bomb would
        raise _Refused(f"{name} is compressed, expected the records of torch.save")
    return archive.read(info)


def _empty(*args: Any) -> dict:
    if args:
        raise _Refused("an ordered dict with arguments, expected the empty one of a tensor")
    return {}


def _rebuilt(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> np.ndarray:
    """A tensor: a window on its storage."""
    del rest  # whether it wants a gradient, hooks, metadata
    if not isinstance(storage, np.ndarray) or len(shape) != len(strides):
        raise _Refused("a tensor without a storage, or with unlike shape and strides")
    numbers = (offset, *shape, *strides)
    if not all(type(n) is int and n >= 0 for n in numbers):
        raise _Refused(f"a tensor with offset, shape and strides {numbers}")
    size = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides))
    if size > len(storage) or (size and last >= len(storage)):
        raise _Refused(f"a tensor of shape {tuple(shape)} in a storage of {len(storage)} numbers")
    if not size:
        return np.zeros(tuple(shape), storage.dtype)
    steps = tuple(stride * storage.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(storage[offset:], tuple(shape), steps, writeable=False)


def read_note(path: Path) -> str:
    """What `write` put beside the tensors; "" in any other file of torch.save.

    Raises:
      ValueError: no zip file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = f"{_ROOT}/{_NOTE}"
            return _record(archive, name).decode() if name in archive.namelist() else ""
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not in the zip format of torch.save: {error}") from error


def write(path: Path, tensors: Tensors, note: str = "") -> None:
    """Writes a dict of arrays (or of dicts of arrays) so that `torch.load` gives tensors.

    The same arrays give the same bytes. Every array has a storage of its own. The file appears
    whole or not at all.

    Args:
      tensors: names -> arrays of a type that PyTorch has, or dicts of the same.
      note: text to lie in the file, where `torch.load` looks for it only if it is told to
        (`_extra_files`).
    Raises:
      ValueError: a name that is no string, or an array of another type.
    """
    arrays: list[np.ndarray] = []
    description = b"\x80\x02" + _dict("", tensors, arrays) + pickle.STOP
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
            _put(file, archive, "data.pkl", description)
            _put(file, archive, "byteorder", b"little")
            for number, array in enumerate(arrays):
                _put(file, archive, f"data/{number}", array.tobytes())
            if note:
                _put(file, archive, _NOTE, note.encode())
            _put(file, archive, "version", b"3\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _put(file: BinaryIO, archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Adds a record whose numbers begin at a multiple of `_ALIGNMENT`."""
    info = zipfile.ZipInfo(f"{_ROOT}/{name}")  # its date is 1980
    begin = file.tell() + _LOCAL_HEADER + len(info.filename) + 4
    filling = -begin % _ALIGNMENT
    info.extra = _ALIGNING + struct.pack("<H", filling) + b"Z" * filling
    archive.writestr(info, data)


def _dict(where: str, tensors: Tensors, arrays: list[np.ndarray]) -> bytes:
    """Opcodes that build a dict; its arrays are added to `arrays`."""
    if not isinstance(tensors, Mapping):
        raise ValueError(f"{where or 'the whole'} is a {type(tensors).__name__}, expected a dict")
    parts = [pickle.EMPTY_DICT, pickle.MARK]
    for key, value in tensors.items():
        if not isinstance(key, str):
            raise ValueError(f"{where}: a key is {key!r}, expected a name")
        inner = f"{where}/{key}" if where else key
        parts.append(_text(key))
        is_array = isinstance(value, np.ndarray | np.generic)
        parts.append(_tensor(inner, value, arrays) if is_array else _dict(inner, value, arrays))
    return b"".join([*parts, pickle.SETITEMS])


def _tensor(where: str, value: np.ndarray, arrays: list[np.ndarray]) -> bytes:
    """Opcodes that build a contiguous tensor of its own storage, as torch.save writes them."""
    kind = value.dtype.newbyteorder("=")
    if kind not in _STORAGE_OF:
        known = ", ".join(map(str, _STORAGE_OF))
        raise ValueError(f"{where}: an array of {value.dtype}, PyTorch's file can hold {known}")
    value = np.asarray(value)
    strides = [math.prod(value.shape[axis + 1 :]) for axis in range(value.ndim)]
    storage = [_text("storage"), _global("torch", _STORAGE_OF[kind]), _text(str(len(arrays)))]
    storage += [_text("cpu"), _number(value.size)]
    arrays.append(value.astype(kind.newbyteorder("<"), order="C", copy=False))
    no_hooks = _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = [_tuple(storage) + pickle.BINPERSID, _number(0)]
    arguments += [_tuple(map(_number, value.shape)), _tuple(map(_number, strides))]
    arguments += [pickle.NEWFALSE, no_hooks]
    return _global("torch._utils", "_rebuild_tensor_v2") + _tuple(arguments) + pickle.REDUCE


def _tuple(parts: Any) -> bytes:
    return b"".join([pickle.MARK, *parts, pickle.TUPLE])


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def _number(number: int) -> bytes:
    if number < 2**31:
        return pickle.BININT + struct.pack("<i", number)
    data = pickle.encode_long(number)
    return pickle.LONG1 + bytes([len(data)]) + data


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()
