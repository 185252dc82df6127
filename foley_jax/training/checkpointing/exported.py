"""A model as files that travel: `config.json`, `weights.safetensors` and their `SHA256SUMS`.

The keys are "params/PATH" and "rest/PATH". Weights may be stored in half the size; they are read
back in the type that the model has.
"""

from collections.abc import Mapping
import json
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
_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_NAMES |= {"I64": "int64", "I32": "int32", "U32": "uint32", "U8": "uint8", "BOOL": "bool"}
_TYPES = "foley_jax.types"  # key of the file's metadata: type that each changed leaf is read as


def is_one(folder: epath.PathLike) -> bool:
    """Returns whether a folder holds an exported model."""
    return (epath.Path(folder) / WEIGHTS).exists()


def write(
    folder: epath.PathLike, groups: Mapping[str, Mapping[str, Any]], *, dtype: str | None = None
) -> int:
    """Writes the weights of a model; its config is written beside them by the caller.

    Args:
      folder: is made if it is not there.
      groups: {"params", "rest"} as flat dicts of arrays.
      dtype: floats are stored in it ("bfloat16", "float16"); by default as they are.
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
                types[key], array = str(array.dtype), _narrowed(array, dtype, key)
            arrays[key] = np.array(array, order="C")  # a scalar stays one
    content = safetensors_numpy.save(arrays, {_TYPES: json.dumps(types)})
    epath.Path(folder).mkdir(parents=True, exist_ok=True)
    (epath.Path(folder) / WEIGHTS).write_bytes(content)
    return len(content)


def _narrowed(array: np.ndarray, dtype: str, key: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        narrow = array.astype(jnp.dtype(dtype))
    if np.isfinite(array).all() and not np.isfinite(narrow.astype(np.float32)).all():
        raise ValueError(f"{key} reaches {np.abs(array).max():g}, too large for {dtype}")
    return narrow


def read(
    folder: epath.PathLike, *, shardings: Mapping[str, jax.sharding.Sharding] | None = None
) -> dict[str, dict[str, jax.Array]]:
    """Returns {"params", "rest"} as flat dicts.

    Args:
      shardings: path -> where to put that leaf; given, only these leaves are read.
    Raises:
      ValueError: the file is damaged, or a file of the folder is not the one of its SHA256SUMS;
        the message names it.
    """
    hashes.check(folder)
    arrays, types = _content(epath.Path(folder) / WEIGHTS)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    found: dict[str, dict[str, jax.Array]] = {name: {} for name in GROUPS}
    for key, array in arrays.items():
        name, _, path = key.partition("/")
        if shardings is None or path in shardings:
            array = array.astype(types.get(key, array.dtype))
            found[name][path] = jax.device_put(array, (shardings or {}).get(path, here))
    return found


def shapes(folder: epath.PathLike) -> dict[str, tuple[int, ...]]:
    """Returns path -> shape of every leaf."""
    arrays, _ = _content(epath.Path(folder) / WEIGHTS)
    return {key.partition("/")[2]: array.shape for key, array in arrays.items()}


def _array(dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    """An entry of a safetensors file; its own reader knows no bfloat16 in NumPy."""
    if dtype not in _NAMES:
        raise ValueError(f"holds {dtype}, which no model of ours has")
    return np.frombuffer(data, jnp.dtype(_NAMES[dtype])).reshape(shape)


def _content(file: epath.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    content = file.read_bytes()
    try:
        arrays = {key: _array(**about) for key, about in safetensors.deserialize(content)}
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        strangers = [key for key in arrays if key.partition("/")[0] not in GROUPS]
        if strangers:
            raise ValueError(f"{strangers[0]!r} is no weight of params/ or rest/")
        return arrays, json.loads(metadata.get(_TYPES, "{}"))
    except (safetensors.SafetensorError, ValueError, LookupError) as error:
        raise ValueError(f"{file} is damaged ({error}); export or copy it again") from error
