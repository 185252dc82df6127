"""A model as files that travel: `config.json`, `weights.safetensors` and their `SHA256SUMS`.

The keys are "params/PATH" and "rest/PATH". Weights may be stored in half or a quarter of the size,
and those that another exported model beside it holds, too, may be left to that one; they are read
back in the type that the model has.
"""

from collections.abc import Mapping
import json
import os
from typing import Any

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from foley_jax.training.checkpointing import hashes

WEIGHTS = "weights.safetensors"
GROUPS = ("params", "rest")
DTYPES = ("bfloat16", "float16", "int8")
_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_NAMES |= {"I64": "int64", "I32": "int32", "I8": "int8", "U32": "uint32", "U8": "uint8"}
_NAMES |= {"BOOL": "bool"}
_SCALES = "scales"  # scales/KEY: what the 8 bits of each last axis are multiplied with
# keys of the file's metadata
_TYPES = "foley_jax.types"  # type that each changed leaf is read as
_SHARED = "foley_jax.shared"  # folder, from here, with the keys that are read from there


def is_one(folder: epath.PathLike) -> bool:
    """Returns whether a folder holds an exported model."""
    return (epath.Path(folder) / WEIGHTS).exists()


def write(
    folder: epath.PathLike,
    groups: Mapping[str, Mapping[str, Any]],
    *,
    dtype: str | None = None,
    share: epath.PathLike | None = None,
) -> int:
    """Writes the weights of a model; its config is written beside them by the caller.

    Args:
      folder: is made if it is not there.
      groups: {"params", "rest"} as flat dicts of arrays.
      dtype: floats are stored in it ("bfloat16", "float16"); by default as they are. "int8" stores
        matrices and kernels in 8 bits, with a scale for each index of the last axis.
      share: another exported model; leaves that it holds with the same path and numbers are read
        from it. The two folders then travel together.
    Returns:
      Size of the file in bytes.
    Raises:
      ValueError: the folder holds an exported model already, or a weight is too large for dtype.
    """
    if is_one(folder):
        raise ValueError(f"{folder} holds an exported model already; choose a new folder")
    arrays, types = {}, {}
    for name in GROUPS:
        for path, leaf in groups.get(name, {}).items():
            key, array = f"{name}/{path}", np.asarray(leaf)
            if dtype and jnp.issubdtype(array.dtype, jnp.floating):
                types[key] = str(array.dtype)
                arrays |= _narrowed(array, dtype, key)
            else:
                arrays[key] = np.array(array, order="C")  # a scalar stays one
    about = {_TYPES: json.dumps(types)}
    if share is not None:
        keys = _held_by(share, arrays)
        for key in keys:
            del arrays[key]
        place = os.path.relpath(os.fspath(share), os.fspath(folder))
        about[_SHARED] = json.dumps({"folder": place, "keys": keys})
    content = safetensors_numpy.save(arrays, about)
    epath.Path(folder).mkdir(parents=True, exist_ok=True)
    (epath.Path(folder) / WEIGHTS).write_bytes(content)
    return len(content)


def _held_by(share: epath.PathLike, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Keys of the leaves, with their scales, that another model stores with the same numbers."""
    theirs, _ = _stored(epath.Path(share) / WEIGHTS)

    def is_equal(key: str) -> bool:
        a, b = arrays.get(key), theirs.get(key)
        if a is None or b is None:
            return a is b
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()

    leaves = [key for key in arrays if not key.startswith(f"{_SCALES}/")]
    equal = [key for key in leaves if is_equal(key) and is_equal(f"{_SCALES}/{key}")]
    return [one for key in equal for one in (key, f"{_SCALES}/{key}") if one in arrays]


def _narrowed(array: np.ndarray, dtype: str, key: str) -> dict[str, np.ndarray]:
    """A leaf in fewer bits, under its key; in 8 bits its scale beside it."""
    if dtype == "int8":
        if array.ndim < 2:
            return {key: np.array(array, order="C")}
        largest = np.abs(array).max(axis=tuple(range(array.ndim - 1)))
        if not np.isfinite(largest).all():
            raise ValueError(f"{key} holds numbers that are not finite, which int8 has not")
        scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        return {key: np.rint(array / scale).astype(np.int8), f"{_SCALES}/{key}": scale}
    with np.errstate(over="ignore"):
        narrow = np.array(array.astype(jnp.dtype(dtype)), order="C")
    if np.isfinite(array).all() and not np.isfinite(narrow.astype(np.float32)).all():
        raise ValueError(f"{key} reaches {np.abs(array).max():g}, too large for {dtype}")
    return {key: narrow}


def read(
    folder: epath.PathLike, *, shardings: Mapping[str, jax.sharding.Sharding] | None = None
) -> dict[str, dict[str, jax.Array]]:
    """Returns {"params", "rest"} as flat dicts.

    Args:
      shardings: path -> where to put that leaf; given, only these leaves are read.
    Raises:
      ValueError: the file is damaged, or a file of the folder is not the one of its SHA256SUMS;
        the message names it.
      FileNotFoundError: the model that it shares weights with is not beside it.
    """
    hashes.check(folder)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    found: dict[str, dict[str, jax.Array]] = {name: {} for name in GROUPS}
    arrays, types = _whole(folder)
    for key, array in arrays.items():
        name, _, path = key.partition("/")
        if name == _SCALES or (shardings is not None and path not in shardings):
            continue
        if key in types:
            array = (array * arrays.get(f"{_SCALES}/{key}", 1)).astype(types[key])
        found[name][path] = jax.device_put(array, (shardings or {}).get(path, here))
    return found


def shapes(folder: epath.PathLike) -> dict[str, tuple[int, ...]]:
    """Returns path -> shape of every leaf."""
    arrays, _ = _whole(folder)
    leaves = {key: array for key, array in arrays.items() if not key.startswith(f"{_SCALES}/")}
    return {key.partition("/")[2]: array.shape for key, array in leaves.items()}


def _whole(folder: epath.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays as they are stored, those that are shared too, and the types of narrowed ones."""
    arrays, about = _stored(epath.Path(folder) / WEIGHTS)
    shared = about.get(_SHARED, {"folder": "", "keys": ()})
    if shared["keys"]:
        other = epath.Path(folder) / shared["folder"] / WEIGHTS
        if not other.exists():
            raise FileNotFoundError(
                f"{folder} shares weights with {other.parent}, which is not there; copy both"
            )
        theirs, _ = _stored(other)
        arrays |= {key: theirs[key] for key in shared["keys"]}
    return arrays, about.get(_TYPES, {})


def _array(dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    """An entry of a safetensors file; its own reader knows no bfloat16 in NumPy."""
    if dtype not in _NAMES:
        raise ValueError(f"holds {dtype}, which no model of ours has")
    return np.frombuffer(data, jnp.dtype(_NAMES[dtype])).reshape(shape)


def _stored(file: epath.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and metadata of a file as they are written."""
    content = file.read_bytes()
    try:
        arrays = {key: _array(**about) for key, about in safetensors.deserialize(content)}
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        strangers = [key for key in arrays if key.partition("/")[0] not in (*GROUPS, _SCALES)]
        if strangers:
            raise ValueError(f"{strangers[0]!r} is no weight of params/ or rest/")
        ours = {key: json.loads(metadata[key]) for key in (_TYPES, _SHARED) if key in metadata}
        return arrays, ours
    except (safetensors.SafetensorError, ValueError, LookupError) as error:
        raise ValueError(f"{file} is damaged ({error}); export or copy it again") from error
