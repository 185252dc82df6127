"""Pickles of PyTorch as plain data: dicts, lists, numbers and tensors; nothing in them is called.

What a pickle names is one of three things: part of a tensor, which is built here; an object beside
the tensors (a config, a callback, NumPy's scalars), whose place an empty `Beside` takes; or a
function of Python itself that no checkpoint needs, and then the file is refused.
"""

import _compat_pickle
from collections.abc import Callable, Sequence
import math
import pickle
import sys
from typing import Any, BinaryIO

import numpy as np

BFLOAT16 = "BFloat16"
# element types of storages and their numbers; NumPy has no bfloat16, so its bits
NUMBERS = {
    "Float": "f4",
    "Double": "f8",
    "Half": "f2",
    BFLOAT16: "u2",
    "Long": "i8",
    "Int": "i4",
    "Short": "i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "?",
    "UInt16": "u2",
    "UInt32": "u4",
    "UInt64": "u8",
}
_UNSIGNED = {f"uint{bits}": f"UInt{bits}" for bits in (16, 32, 64)}
# data of Python's own library that configs hold; its other names are functions that act
_HARMLESS = {
    "argparse": {"Namespace"},
    "builtins": {
        *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list"),
        *("object", "range", "set", "slice", "str", "tuple"),
    },
    "_codecs": {"encode"},  # how pickles write bytes
    "collections": {"Counter", "defaultdict", "deque"},
    "copyreg": {"_reconstructor"},
    "types": {"SimpleNamespace"},
    "uuid": {"UUID", "SafeUUID"},
}
_HARMLESS_MODULES = ("datetime", "decimal", "enum", "fractions", "pathlib", "typing")
_LARGEST_EXPANDED = 1 << 24  # numbers


class Refused(ValueError):
    """A pickle that is no checkpoint; the message says why, without the file's name."""


class Beside(dict):
    """Stands in for an object that nobody needs, and keeps only items that were put into it.

    Attributes:
      full_name: of its class, "module.Class".
    """

    full_name = ""
    __hash__ = object.__hash__  # classes of this kind can be keys of a dict

    def __new__(cls, *args: Any, **kwargs: Any) -> "Beside":
        del args, kwargs
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        del args, kwargs
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        del state

    def append(self, item: Any) -> None:
        """Forgets an item of a list."""
        del item

    def extend(self, items: Any) -> None:
        """Forgets the items of a list."""
        del items

    add = append


class _Dict(dict):
    """An ordered dict; state dicts carry attributes, which are dropped."""

    def __setstate__(self, state: Any) -> None:
        del state


class Name:
    """Stands for a name in the pickle, which can call it, and change nothing in it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        object.__setattr__(self, "_call", call)

    def __setattr__(self, name: str, value: Any) -> None:
        raise Refused(f"its pickle sets {name!r} of a function")

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)


class ElementType:
    """A type of numbers; nothing to call. Attribute `name`: a key of `NUMBERS`, or another."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        object.__setattr__(self, "name", name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise Refused(f"its pickle sets {name!r} of a type")


class Storage:
    """Numbers in a row, read when they are first asked for.

    Attributes:
      kind: name of the element type.
      count: of numbers; of bytes where `kind` is "Untyped".
      vouched: whether a checksum stands for the pickle that lays tensors out in it.
    """

    def __init__(
        self,
        kind: str,
        count: int,
        read: Callable[[], memoryview],
        *,
        big: bool,
        vouched: bool = True,
    ):
        self.kind, self.count, self.vouched = kind, count, vouched
        self._read, self._big = read, big
        self._arrays: dict[str, np.ndarray] = {}

    def array(self, kind: str) -> np.ndarray:
        """All numbers as a read-only array [count]; bfloat16 as float32.

        Raises:
          Refused: numbers of a type that NumPy does not know, or a damaged record.
        """
        if kind not in self._arrays:
            if kind not in NUMBERS:
                raise Refused(
                    f"it stores {kind} numbers, which NumPy does not know; save it in float32"
                )
            number = np.dtype(NUMBERS[kind]).newbyteorder(">" if self._big else "<")
            data = np.frombuffer(self._read(), number)
            data = data.astype(number.newbyteorder("="), copy=False)
            if kind == BFLOAT16:  # the upper half of a float32
                data = (data.astype(np.uint32) << 16).view(np.float32)
            data.flags.writeable = False
            self._arrays[kind] = data
        return self._arrays[kind]


class Tensor:
    """A window on a storage. Attributes `kind`: name of its element type; `shape`."""

    def __init__(self, kind: str, storage: Storage, offset: int, shape: tuple, strides: tuple):
        self.kind, self.shape = kind, shape
        self._storage, self._offset, self._strides = storage, offset, strides

    def array(self) -> np.ndarray:
        """The numbers, read-only; see `Storage.array`."""
        numbers = self._storage.array(self.kind)
        _check_window(self._offset, self.shape, self._strides, len(numbers))
        if not math.prod(self.shape):
            return np.zeros(self.shape, numbers.dtype)
        steps = tuple(stride * numbers.itemsize for stride in self._strides)
        return np.lib.stride_tricks.as_strided(
            numbers[self._offset :], self.shape, steps, writeable=False
        )


def _check_window(offset: int, shape: tuple, strides: tuple, count: int) -> None:
    size = math.prod(shape)
    # expanded tensors show a number again and again; none is as large as a bomb
    if size > max(count, _LARGEST_EXPANDED) or (size and _last(offset, shape, strides) >= count):
        raise Refused(f"a tensor of shape {shape} in a storage of {count} numbers")


def _last(offset: int, shape: tuple, strides: tuple) -> int:
    """The place of a tensor's last number in its storage."""
    return offset + sum((n - 1) * stride for n, stride in zip(shape, strides))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor:
    """`_rebuild_tensor_v2`; `rest`: whether it wants a gradient, hooks, and in `_v3` the type."""
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise Refused("a tensor without a storage, or with unlike shape and strides")
    numbers = (offset, *shape, *strides)
    if not all(type(n) is int and n >= 0 for n in numbers):
        raise Refused(f"a tensor with offset, shape and strides {numbers}")
    kind = rest[2].name if len(rest) > 2 and isinstance(rest[2], ElementType) else storage.kind
    if kind in NUMBERS and storage.kind != "Untyped":
        window = offset, tuple(shape), tuple(strides)
        _check_window(*window, storage.count)
        if not storage.vouched and math.prod(shape) == storage.count > _last(*window) + 1:
            raise Refused(
                f"a tensor of shape {window[1]} with strides {window[2]} leaves out numbers of its "
                "own: the file is damaged, download or copy it again"
            )
    return Tensor(kind, storage, offset, tuple(shape), tuple(strides))


def _parameter(data: Any, *rest: Any) -> Any:
    """`_rebuild_parameter`: its tensor."""
    del rest
    return data


def _of_type(function: Any, kind: Any, args: Any, *state: Any) -> Any:
    """`_rebuild_from_type_v2`: the tensor, without its subclass."""
    del kind, state
    if not isinstance(function, Name) or not isinstance(args, tuple):
        raise Refused("a tensor of a class that is made by another function than PyTorch's")
    return function(*args)


def _ordered(items: Any = ()) -> _Dict:
    return _Dict(items)


_BUILDERS = {
    ("collections", "OrderedDict"): _ordered,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
}


class Reader(pickle.Unpickler):
    """Unpickles one object.

    Args:
      file: of the pickle.
      storage: (element type, key, count) -> the storage that a tensor refers to.
    Attributes:
      beside: full names of the classes for which `Beside` stood in.
    """

    def __init__(self, file: BinaryIO, storage: Callable[[str, str, int], Storage]):
        super().__init__(file, encoding="utf-8", errors="replace")  # texts of Python 2
        self._storage = storage
        self.beside: dict[str, type[Beside]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Our own stand-in of a name; nothing is ever imported."""
        # torch.save writes the names of Python 2
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        builder = _BUILDERS.get((module, name))
        if builder is not None:
            return Name(builder)
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return ElementType(name.removesuffix("Storage"))
        if module == "torch" and name in _UNSIGNED:
            return ElementType(_UNSIGNED[name])
        root = module.split(".")[0]
        harmless = root in _HARMLESS_MODULES or name in _HARMLESS.get(module, ())
        if root in sys.stdlib_module_names and root != "__main__" and not harmless:
            raise Refused(
                f"its pickle names {module}.{name}, and calling that could run code. Load it where "
                "you trust it and save the state dict with safetensors.torch.save_file"
            )
        full = f"{module}.{name}"
        return self.beside.setdefault(full, type("Beside", (Beside,), {"full_name": full}))

    def persistent_load(self, pid: Any) -> Storage | type[Beside]:
        """The storage that a tensor refers to, or a class that old files hold with its source."""
        is_class = isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module"
        if is_class and isinstance(pid[1], type) and issubclass(pid[1], Beside):
            return pid[1]
        if not isinstance(pid, tuple) or len(pid) < 5:
            raise Refused("it refers to something that is no storage of numbers")
        kind, element, key, _, count, *view = pid
        if kind != "storage" or not isinstance(element, ElementType):
            raise Refused(f"it refers to a {kind!r}, expected storages of numbers")
        if any(part is not None for part in view):
            raise Refused("its storages are views (PyTorch before 0.4); load it and save it again")
        found = self._storage(element.name, str(key), count)
        # the number of elements is said again wherever the storage is used
        if found.count != count or found.kind != element.name:
            raise Refused(
                f"storage {key} has {found.count} of {count} numbers, or another type elsewhere"
            )
        return found


def names(classes: Sequence[str], shown: int = 4) -> str:
    """Some names, and how many more there are."""
    rest = len(classes) - shown
    return ", ".join(sorted(classes)[:shown]) + (f" and {rest} more" if rest > 0 else "")
