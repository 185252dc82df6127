"""Named tensors in PyTorch's file format, read and written without PyTorch.

A `.pth` file of `torch.save` is an uncompressed zip: a pickle that describes dicts of tensors, and
one record of raw numbers for every storage. Reading builds nothing but dicts, strings, numbers and
arrays: the pickle's other names are refused, as by `torch.load(path, weights_only=True)`. Writing
puts down what `torch.load` of PyTorch 1.6 or later reads, with `weights_only=True` as well.

Weight files go through `foley_jax.interop.torch_reader`, which knows the other formats and passes
over what lies beside the tensors.
"""

from collections.abc import Mapping
import math
import os
from pathlib import Path
import pickle
import struct
from typing import Any, BinaryIO
import zipfile

import numpy as np

from foley_jax.interop import torch_archive, torch_pickle

Tensors = Mapping[str, "np.ndarray | Tensors"]

_ROOT = "archive"
_NOTE = "extra/note"
_ALIGNMENT = 64  # bytes, as torch.save lays storages for mapping them into memory
_ALIGNING = b"FB"  # its id of the extra field that fills up to there
_LOCAL_HEADER = 30  # bytes of a zip entry before its name
_STORAGE_OF = {
    np.dtype(kind): f"{name}Storage"
    for name, kind in torch_pickle.NUMBERS.items()
    if name != torch_pickle.BFLOAT16 and not name.startswith("UInt")
}


def read(path: Path) -> dict[str, Any]:
    """The dict of tensors (or of dicts of tensors) that a file holds.

    Returns:
      Keys in the order of the file; read-only arrays, views where tensors share a storage;
      bfloat16 becomes float32.
    Raises:
      FileNotFoundError: no such file.
      ValueError: another format, a file that is damaged or cut off, or a pickle that names anything
        but tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    content = torch_archive.read_zip(path)
    with torch_archive.naming(path):
        return _arrays("", content.value)


def _arrays(where: str, value: Any) -> Any:
    """Arrays in place of tensors; refuses whatever is not a dict of tensors, at any depth."""
    if where and isinstance(value, torch_pickle.Tensor):
        return value.array()
    if not isinstance(value, dict) or isinstance(value, torch_pickle.Beside):
        what = f"{where!r} is" if where else "it holds"
        name = getattr(value, "full_name", type(value).__name__)
        raise torch_pickle.Refused(f"{what} a {name}, expected a dict of tensors")
    found = {}
    for key, inner in value.items():
        if not isinstance(key, str):
            raise torch_pickle.Refused(f"a key is {key!r}, expected a name")
        found[key] = _arrays(f"{where}/{key}" if where else key or "''", inner)
    return found


def read_note(path: Path) -> str:
    """Returns what `write` put beside the tensors; "" in any other file of torch.save.

    Raises:
      ValueError: no zip file.
    """
    with torch_archive.naming(path), zipfile.ZipFile(path) as archive:
        name = f"{_ROOT}/{_NOTE}"
        return archive.read(name).decode() if name in archive.namelist() else ""


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
