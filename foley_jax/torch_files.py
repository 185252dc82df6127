"""Weight files as NumPy arrays, read without running code; the only file that imports torch.

`.safetensors`, or PyTorch files whose pickle holds nothing but tensors.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import json
from pathlib import Path
import pickle
import re
from types import ModuleType
from typing import Any
import zipfile

import numpy as np
import safetensors

SAFETENSORS = (".safetensors",)
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
# Names that official training checkpoints hold beside their tensors (Lightning's callbacks, the
# order of PANNs' data); they are replaced by an empty class, so nothing of theirs is run.
_INERT_GLOBALS = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    *(
        f"numpy.{core}.multiarray.{name}"
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    "numpy.ndarray",
    "numpy.dtype",
)


class _Inert:
    """Stands in for a class whose contents nobody needs."""

    def __init__(self, *args: Any, **kwargs: Any):
        del args, kwargs

    def __setstate__(self, state: Any) -> None:
        del state


def read_state_dict(
    path: Path,
    *,
    containers: Sequence[str] = ("state_dict",),
    folders: Sequence[str] = (),
    averaged: bool = False,
) -> dict[str, np.ndarray]:
    """State dict of a file, or of a folder of weight files.

    Args:
      path: a weight file, or a folder: with `folders` its named subfolders, each key prefixed
        "SUBFOLDER.", else the folder's own files.
      containers: names under which a file may hold its state dict; the first found is opened.
      folders: see `path`.
      averaged: of a folder with "model.safetensors" and "model.non_ema.safetensors", take the
        former (averaged over training) instead of the latter.
    Raises:
      FileNotFoundError: no such file, or no weight file in a folder.
      ValueError: another format, or a pickle that holds code or something other than tensors.
    """
    state: dict[str, np.ndarray] = {}
    for prefix, file in weight_files(path, folders=folders, averaged=averaged):
        with _opened(file, containers) as entries:
            for key in entries.keys():  # noqa: SIM118, a safetensors file is no mapping
                state[prefix + key] = entries.get(key)
    return state


def read_keys(
    path: Path, *, containers: Sequence[str] = ("state_dict",), folders: Sequence[str] = ()
) -> list[str]:
    """The keys that `read_state_dict` would give; tensors stay on disk where the format allows."""
    keys: list[str] = []
    for prefix, file in weight_files(path, folders=folders):
        with _opened(file, containers) as entries:
            keys += [prefix + key for key in entries.keys()]  # noqa: SIM118
    return keys


def weight_files(
    path: Path, *, folders: Sequence[str] = (), averaged: bool = False
) -> list[tuple[str, Path]]:
    """(prefix of its keys, file) of every file to read; see `read_state_dict`."""
    if path.is_file():
        return [("", path)]
    if not path.is_dir():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    if not folders:
        return [("", file) for file in _of_folder(path, averaged)]
    return [(f"{name}.", file) for name in folders for file in _of_folder(path / name, averaged)]


def _of_folder(folder: Path, averaged: bool) -> list[Path]:
    """All safetensors files of a folder, or, without any, all its pickles; no copy twice."""
    for suffixes in (SAFETENSORS, PICKLES):
        # "model.fp16.safetensors" beside "model.safetensors" holds the same weights again
        # names with a leading dot are Mac's shadows of files, and downloads that were broken off
        files = [f for f in sorted(folder.glob("[!.]*")) if f.suffix in suffixes]
        files = [f for f in files if ".fp16." not in f.name] or files
        last = [f for f in files if ".non_ema." in f.name]
        mean = [f for f in files if f not in last]
        if files:
            return (mean or last) if averaged else (last or mean)
    raise FileNotFoundError(f"{folder} has no weight files ({', '.join(SAFETENSORS + PICKLES)})")


class _Safetensors:
    def __init__(self, path: Path, file: Any):
        self._path, self._file = path, file

    def keys(self) -> list[str]:
        return list(self._file.keys())

    def get(self, key: str) -> np.ndarray:
        kind = self._file.get_slice(key).get_dtype()
        if kind == "BF16":
            return _bfloat16(self._path, key)
        try:
            return self._file.get_tensor(key)
        except TypeError as error:
            raise ValueError(
                f"{self._path}: {key!r} is stored as {kind}, which NumPy does not know; save the "
                "file in float16 or float32"
            ) from error


def _bfloat16(path: Path, key: str) -> np.ndarray:
    """A bfloat16 tensor of a safetensors file as float32: its bits are the upper half."""
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(header_size))[key]
        start, end = entry["data_offsets"]
        file.seek(8 + header_size + start)
        bits = np.frombuffer(file.read(end - start), "<u2").astype(np.uint32) << 16
    return bits.view(np.float32).reshape(entry["shape"])


class _Pickled:
    def __init__(self, path: Path, torch: ModuleType, state: Mapping[str, Any]):
        self._path, self._torch, self._state = path, torch, {str(k): v for k, v in state.items()}

    def keys(self) -> list[str]:
        return list(self._state)

    def get(self, key: str) -> np.ndarray:
        return _to_numpy(self._torch, self._path, key, self._state[key])


@contextlib.contextmanager
def _opened(path: Path, containers: Sequence[str]) -> Iterator[_Safetensors | _Pickled]:
    """The entries of a file; errors in it name it."""
    if path.suffix in SAFETENSORS:
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                yield _Safetensors(path, file)
        except safetensors.SafetensorError as error:
            raise ValueError(
                f"{path} is not a readable safetensors file (is it whole?): {error}"
            ) from error
    elif path.suffix in PICKLES or path.suffix == ".tar":
        torch = _torch()
        yield _Pickled(path, torch, _unpickle(torch, path, containers))
    else:
        known = ", ".join(SAFETENSORS + PICKLES)
        raise ValueError(f"{path} is not a weight file; known endings: {known}")


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "reading a PyTorch file needs PyTorch: pip install 'foley_jax[convert]' "
            "(.safetensors files need nothing)"
        ) from error
    return torch


def _unpickle(torch: ModuleType, path: Path, containers: Sequence[str]) -> Mapping[str, Any]:
    inert = [(_Inert, name) for name in _INERT_GLOBALS]
    try:
        with torch.serialization.safe_globals(inert):
            # files in PyTorch's zip format can stay on disk until a tensor is used
            mmap = zipfile.is_zipfile(path)
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        named = f" ({found.group(1)})" if found else ""
        raise ValueError(
            f"{path} is refused: its pickle holds something other than tensors{named}, and "
            "reading that could run code. Load it where you trust it and save the state dict "
            "with safetensors.torch.save_file."
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is not a readable PyTorch file (is it whole?): {error}"
        ) from error
    for name in containers:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
            break
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, expected a dict of tensors")
    return state


def _to_numpy(torch: ModuleType, path: Path, key: str, value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach()
        # NumPy has no bfloat16
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, int | float):
        return np.asarray(value)
    names = ", ".join(("state_dict", "model"))
    raise ValueError(
        f"{path}: {key!r} is a {type(value).__name__}, expected a tensor; the weights may lie "
        f"under another name than {names}"
    )
