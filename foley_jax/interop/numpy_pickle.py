"""Pickles of dicts of NumPy arrays, as Flax once saved them, without running code in them.

A pickle names functions to call. Here three names stand for parts of an array, which is built from
its bytes; any other name refuses the file.
"""

from collections.abc import Iterator, Mapping
import math
from pathlib import Path
import pickle
import struct
from typing import Any

import numpy as np

from foley_jax.interop import torch_archive, torch_pickle

_KINDS = "fiub"  # float, integer, unsigned, bool: no objects, no texts
_DEEPEST = 32  # dicts within dicts


class _Type:
    """Stands in for a dtype: its name, and the order of bytes that the state brings."""

    def __init__(self, name: Any, *rest: Any):
        del rest
        self.dtype = np.dtype(name) if isinstance(name, str) else None
        if self.dtype is None or self.dtype.kind not in _KINDS:
            raise torch_pickle.Refused(f"it holds arrays of {name!r}, expected numbers")

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for an array until its state brings shape, type and bytes."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, data = state
        self.value = _array(data, kind, shape, "F" if is_fortran else "C")


def _array(data: Any, kind: Any, shape: Any, order: str) -> np.ndarray:
    if not isinstance(kind, _Type) or not isinstance(data, bytes | bytearray):
        raise torch_pickle.Refused("it holds an array without type or bytes")
    if len(data) != kind.dtype.itemsize * math.prod(shape):
        raise torch_pickle.Refused(f"an array of shape {shape} has {len(data)} bytes")
    value = np.frombuffer(bytes(data), kind.dtype).reshape(shape, order=order)
    return value.astype(kind.dtype.newbyteorder("="), copy=False)


def _empty(*args: Any) -> _Array:
    """`numpy.core.multiarray._reconstruct`, whose arguments are the same for all arrays."""
    del args
    return _Array()


_NAMES = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _empty for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _array for core in ("core", "_core")},
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise torch_pickle.Refused(
                f"its pickle names {module}.{name}, expected NumPy arrays alone. Load it where you "
                "trust it and save the arrays with numpy.savez or safetensors"
            )
        return _NAMES[module, name]


def is_one(path: Path) -> bool:
    """Whether a file begins as a pickle that is none of `torch.save`."""
    with path.open("rb") as file:
        begin = file.read(16)
    return begin[:1] == b"\x80" and not torch_archive.is_legacy(begin)


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of nested dicts by their keys with slashes between, read-only.

    Raises:
      ValueError: damaged, or anything in it but dicts and arrays of numbers.
    """
    try:
        with path.open("rb") as file:
            return dict(_flat(_Reader(file).load(), ""))
    except torch_pickle.Refused as error:
        raise ValueError(f"{path} is refused: {error}") from error
    except (
        *(pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, LookupError),
        *(MemoryError, TypeError, ValueError, struct.error),
    ) as error:
        raise ValueError(
            f"{path} is no readable pickle of arrays; download or copy it again "
            f"({type(error).__name__}: {error})"
        ) from error


def _flat(value: Any, front: str, depth: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(value, _Array):
        value = value.value
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
        yield front, value
    elif isinstance(value, Mapping) and depth < _DEEPEST:
        for key, entry in value.items():
            yield from _flat(entry, f"{front}/{key}" if front else str(key), depth + 1)
    else:
        raise torch_pickle.Refused(
            f"{front or 'it'} is a {type(value).__name__}, expected dicts of arrays"
        )
