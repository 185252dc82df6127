"""Variables of a TensorFlow checkpoint or SavedModel as NumPy arrays, without TensorFlow.

A checkpoint is an index (a LevelDB table: sorted names -> protocol buffers that say where a
variable lies) and shards of bare numbers. Only uncompressed tables and whole variables are read:
TensorFlow writes nothing else unless told to. Nothing in the files is run. Their checksums are not
compared: compare the files with the sums that their publisher gives.
Source: tensorflow/core/util/tensor_bundle, tensorflow/core/protobuf/tensor_bundle.proto.
"""

from collections.abc import Iterator
import math
from pathlib import Path

import numpy as np

INDEX = ".index"
_MAGIC = bytes.fromhex("57fb808b247547db")  # of a LevelDB table, its last bytes
_FOOTER = 48
# DataType of types.proto; strings and what else lies beside the weights are left out
_NUMBERS = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 6: "i1", 9: "<i8", 10: "?", 19: "<f2"}
_VARIABLE = "/.ATTRIBUTES/VARIABLE_VALUE"


def index_of(path: Path) -> Path | None:
    """The index of a checkpoint that a path names: itself, its prefix, or a SavedModel's folder."""
    places = (path, path.with_name(path.name + INDEX), path / "variables" / f"variables{INDEX}")
    return next((p for p in places if p.suffix == INDEX and p.is_file()), None)


def read(path: Path) -> dict[str, np.ndarray]:
    """All variables of numbers by name, without the "/.ATTRIBUTES/VARIABLE_VALUE" behind it.

    Args:
      path: PREFIX.index, PREFIX, or the folder of a SavedModel.
    Returns:
      Read-only arrays in TensorFlow's layout.
    Raises:
      FileNotFoundError: no index there, or a shard that is missing.
      ValueError: a damaged file, or one written with compression or in slices.
    """
    index = index_of(Path(path))
    if index is None:
        raise FileNotFoundError(
            f"no TensorFlow checkpoint at {path}: expected PREFIX.index beside its shards, or a "
            "SavedModel's folder with variables/variables.index"
        )
    try:
        entries = dict(_table(index.read_bytes()))
        header = _fields(entries.pop(b""))
        found = {}
        for name, entry in entries.items():
            array = _variable(index, _first(header, 1, 1), _fields(entry))
            if array is not None:
                found[name.decode().removesuffix(_VARIABLE)] = array
    except (LookupError, UnicodeDecodeError, TypeError) as error:
        raise ValueError(f"{index} is damaged, download or copy it again: {error!r}") from error
    return found


def _variable(index: Path, num_shards: int, entry: dict[int, list]) -> np.ndarray | None:
    """A variable, or None of what holds no numbers."""
    kind = _NUMBERS.get(_first(entry, 1, 0))
    if kind is None:
        return None
    if 7 in entry:
        raise ValueError(f"{index} holds variables in slices; save it again from one process")
    dims = _fields(_first(entry, 2, b"")).get(2, [])
    shape = tuple(_first(_fields(dim), 1, 0) for dim in dims)
    offset, size = _first(entry, 4, 0), _first(entry, 5, 0)
    shard = f"{index.stem}.data-{_first(entry, 3, 0):05}-of-{num_shards:05}"
    path = index.with_name(shard)
    if not path.is_file():
        raise FileNotFoundError(f"{index} needs {shard} beside it; download or copy it there")
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    number = np.dtype(kind)
    if len(data) != size or size != number.itemsize * math.prod(shape):
        raise ValueError(
            f"{path} has {len(data)} bytes for a variable of shape {shape}, {number}, which {size} "
            "are kept for: it is cut off or of another checkpoint; download or copy it again"
        )
    return np.frombuffer(data, number).reshape(shape)


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Entries of a LevelDB table in order of their names."""
    if len(data) < _FOOTER or data[-len(_MAGIC) :] != _MAGIC:
        raise ValueError("no TensorFlow checkpoint's index, or it is cut off; get it again")
    place = len(data) - _FOOTER
    for _ in range(2):  # the handle of the index of meta blocks, which are none
        _, place = _varint(data, place)
    for _, handle in _block(data, *_handle(data, place)):
        yield from _block(data, *_handle(handle, 0))


def _handle(data: bytes, place: int) -> tuple[int, int]:
    start, place = _varint(data, place)
    return start, _varint(data, place)[0]


def _block(data: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """A block's entries; every name is written without what it shares with the one before."""
    if data[start + size]:
        raise ValueError("its index is compressed; save the checkpoint again without")
    block, name, place = data[start : start + size], b"", 0
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")  # places to start from follow
    while place < end:
        shared, place = _varint(block, place)
        own, place = _varint(block, place)
        length, place = _varint(block, place)
        name = name[:shared] + block[place : place + own]
        yield name, block[place + own : place + own + length]
        place += own + length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and the place behind it."""
    value = shift = 0
    while True:
        value |= (data[place] & 0x7F) << shift
        place += 1
        if data[place - 1] < 0x80:
            return value, place
        shift += 7


def _fields(message: bytes) -> dict[int, list]:
    """A protocol buffer: number of a field -> its values, bytes or ints."""
    found: dict[int, list] = {}
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        wire = tag & 7
        if wire == 0:
            value, place = _varint(message, place)
        else:
            size, place = (4, place) if wire == 5 else (8, place) if wire == 1 else (0, place)
            if wire == 2:
                size, place = _varint(message, place)
            value, place = message[place : place + size], place + size
        found.setdefault(tag >> 3, []).append(value)
    return found


def _first(fields: dict[int, list], number: int, default: int | bytes) -> int | bytes:
    return fields.get(number, [default])[0]
