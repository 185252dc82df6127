"""Official PyTorch checkpoints -> our modules, strict in both directions.

    from foley_jax import convert
    cavp = convert.load_torch("diff_foley/cavp", "cavp_epoch66.ckpt")

    python -m foley_jax.convert diff_foley/cavp cavp_epoch66.ckpt converted/cavp
    python -m foley_jax.convert --list

Every key of the checkpoint is used or on its kind's written ignore list, every parameter is
filled, every shape agrees; otherwise one error names all offenders. Files are read without
running code: `.safetensors`, or PyTorch files whose pickle holds nothing but tensors.

Rules, after a kind's renames (`layers/torch_checkpoint.py`): leaf names weight -> kernel, scale
or embedding, running_mean -> mean, running_var -> var; layouts [out, in, *k] -> [*k, in, out];
kernel axes of size 1 may be absent on one side (a 1x3x3 convolution here is 3x3).
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
import importlib
import os
from pathlib import Path
import pickle
import re
import sys
from types import ModuleType
from typing import Any
import zipfile

from flax import nnx, traverse_util
import jax
import ml_collections
import numpy as np
import safetensors.numpy

from foley_jax.layers import strict_fill, torch_checkpoint
from foley_jax.training import task as task_lib

# modules with a KINDS dict; imported only when a kind is looked up
KIND_MODULES = ("foley_jax.diff_foley.weights", "foley_jax.layers.bigvgan_weights")
SAFETENSORS = (".safetensors",)
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
# Names that official training checkpoints hold beside their tensors; they are replaced by an
# empty class, so nothing of the named package is imported or run.
_INERT_GLOBALS = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
)


def kinds() -> dict[str, torch_checkpoint.Checkpoint]:
    """Every known kind of checkpoint by name."""
    found = {}
    for module in KIND_MODULES:
        found.update(importlib.import_module(module).KINDS)
    return found


def _lookup(kind: str) -> torch_checkpoint.Checkpoint:
    known = kinds()
    if kind not in known:
        raise ValueError(f"unknown kind {kind!r}; known kinds: {', '.join(sorted(known))}")
    return known[kind]


def load_torch(kind: str, path: str | os.PathLike, **model_overrides: Any) -> nnx.Module:
    """Reads a checkpoint file (or a diffusers folder) into a module.

    Args:
      kind: a name of `kinds()`, e.g. "diff_foley/cavp".
      path: .ckpt, .pt, .pth, .bin or .safetensors file, or a folder of such files.
      model_overrides: fields of the kind's `model` to change, e.g. `embed_dim=256`.
    Raises:
      strict_fill.ConversionError: keys or shapes do not fit.
      ValueError: unknown kind or field, or a file that holds more than tensors.
    """
    return _module(_lookup(kind), None, path, model_overrides)


def from_state_dict(
    kind: str, state: Mapping[str, np.ndarray], **model_overrides: Any
) -> nnx.Module:
    """As `load_torch`, from official keys and NumPy arrays in PyTorch's layout."""
    return _module(_lookup(kind), state, None, model_overrides)


def _module(
    kind: torch_checkpoint.Checkpoint,
    state: Mapping[str, np.ndarray] | None,
    path: str | os.PathLike | None,
    overrides: Mapping[str, Any],
) -> nnx.Module:
    model = _model_config(kind, overrides)
    if state is None:
        state = read_state_dict(path, containers=kind.containers, folders=kind.folders)

    def build() -> nnx.Module:
        return kind.build(model, rngs=nnx.Rngs(0))

    graphdef, abstract = nnx.split(nnx.eval_shape(build))
    targets = traverse_util.flatten_dict(nnx.to_pure_dict(abstract))
    values = strict_fill.fill(kind, state, {_name(path): leaf for path, leaf in targets.items()})
    left = [path for path in targets if _name(path) not in values]
    values.update(_initialised(build, left))
    return nnx.merge(graphdef, traverse_util.unflatten_dict({p: values[_name(p)] for p in targets}))


def _model_config(
    kind: torch_checkpoint.Checkpoint, overrides: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    unknown = sorted(set(overrides) - set(kind.model))
    if unknown:
        raise ValueError(f"unknown model fields {unknown}; this kind has: {', '.join(kind.model)}")
    return ml_collections.ConfigDict({**kind.model, **overrides})


def _name(path: Iterable[Any]) -> str:
    return "/".join(map(str, path))


def _initialised(build: Any, paths: Sequence[tuple[Any, ...]]) -> dict[str, jax.Array]:
    """Freshly initialised values of `paths` alone: the rest of the module is never computed."""
    if not paths:
        return {}

    def init() -> dict[str, jax.Array]:
        flat = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(build())))
        return {_name(path): flat[path] for path in paths}

    return jax.jit(init)()


class _Inert:
    """Stands in for a class whose contents nobody needs."""

    def __init__(self, *args: Any, **kwargs: Any):
        del args, kwargs

    def __setstate__(self, state: Any) -> None:
        del state


def read_state_dict(
    path: str | os.PathLike,
    *,
    containers: Sequence[str] = ("state_dict",),
    folders: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """State dict of a file, or of a folder of weight files.

    Args:
      path: a weight file, or a folder: with `folders` its named subfolders, each key prefixed
        "SUBFOLDER.", else the folder's own files.
      containers: names under which a file may hold its state dict; the first found is opened.
      folders: see `path`.
    Raises:
      FileNotFoundError: no such file, or no weight file in a folder.
      ValueError: another format, or a pickle that holds code or something other than tensors.
    """
    path = Path(path)
    if path.is_file():
        return _read_file(path, containers)
    if not path.is_dir():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    if not folders:
        return _read_folder(path, containers)
    state = {}
    for name in folders:
        part = _read_folder(path / name, containers)
        state.update({f"{name}.{key}": value for key, value in part.items()})
    return state


def _read_folder(folder: Path, containers: Sequence[str]) -> dict[str, np.ndarray]:
    """All safetensors files of a folder, or, without any, all its pickles."""
    for suffixes in (SAFETENSORS, PICKLES):
        files = [f for f in sorted(folder.glob("*")) if f.suffix in suffixes]
        # "model.fp16.safetensors" beside "model.safetensors" holds the same weights again
        whole = [f for f in files if not re.search(r"\.(fp16|non_ema)\.", f.name)]
        if files:
            state: dict[str, np.ndarray] = {}
            for file in whole or files:
                state.update(_read_file(file, containers))
            return state
    raise FileNotFoundError(f"{folder} has no weight files ({', '.join(SAFETENSORS + PICKLES)})")


def _read_file(path: Path, containers: Sequence[str]) -> dict[str, np.ndarray]:
    if path.suffix in SAFETENSORS:
        return _read_safetensors(path)
    if path.suffix in PICKLES or path.suffix == ".tar":
        return _read_pickle(path, containers)
    known = ", ".join(SAFETENSORS + PICKLES)
    raise ValueError(f"{path} is not a weight file; known endings: {known}")


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        state = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    return {key: np.asarray(value) for key, value in state.items()}


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "reading a PyTorch file needs PyTorch: pip install 'foley_jax[convert]' "
            "(.safetensors files need nothing)"
        ) from error
    return torch


def _read_pickle(path: Path, containers: Sequence[str]) -> dict[str, np.ndarray]:
    torch = _torch()
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
        raise ValueError(f"{path} is not a readable PyTorch file: {error}") from error
    for name in containers:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
            break
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, expected a dict of tensors")
    return {str(key): _to_numpy(torch, path, key, value) for key, value in state.items()}


def _to_numpy(torch: ModuleType, path: Path, key: Any, value: Any) -> np.ndarray:
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


def run_config(kind: str, **model_overrides: Any) -> ml_collections.ConfigDict:
    """Config saved beside converted weights: the paper's stage with this model, or the model."""
    description = _lookup(kind)
    model = _model_config(description, model_overrides)
    if not description.stage:
        return ml_collections.ConfigDict({"model": model})
    stage = importlib.import_module(f"configs.{description.stage}")
    config = stage.get_config()
    config.model = model
    return config


def save(kind: str, module: nnx.Module, folder: str | os.PathLike, **model_overrides: Any) -> None:
    """Writes a converted module as a folder that training, sampling and grafts can read."""
    from foley_jax.training import checkpoint  # orbax takes seconds to import

    config = run_config(kind, **model_overrides)
    trainable = task_lib.resolve(config).trainable if "task" in config else nnx.Param
    _, params, rest = nnx.split(module, trainable, ...)
    checkpoint.save_model(
        folder,
        config=config,
        params=nnx.to_pure_dict(params),
        rest=nnx.to_pure_dict(rest),
        kind=kind,
    )


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m foley_jax.convert",
        description="Turns an official PyTorch checkpoint into a folder this package reads.",
        epilog="""examples:
  python -m foley_jax.convert diff_foley/cavp cavp_epoch66.ckpt converted/cavp
  python -m foley_jax.convert mmaction/slowonly_r50 slowonly_r50.pth converted/slowonly
  python -m foley_jax.convert --list""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("kind", nargs="?", metavar="KIND", help="what the file is; see --list")
    p.add_argument("source", nargs="?", metavar="SRC", help="checkpoint file or diffusers folder")
    p.add_argument("folder", nargs="?", metavar="DST", help="new folder for the converted model")
    p.add_argument("--list", action="store_true", help="print the known kinds and stop")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    command = parser()
    args = command.parse_args(argv)
    if args.list:
        print("\n".join(sorted(kinds())))
        return 0
    if not args.folder:
        command.error("KIND, SRC and DST are needed (or --list)")
    if Path(args.folder).exists() and any(Path(args.folder).iterdir()):
        print(f"error: {args.folder} is not empty; name a new folder", file=sys.stderr)
        return 1
    try:
        module = load_torch(args.kind, args.source)
        save(args.kind, module, args.folder)
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
    print(f"{args.source} -> {args.folder}: {count:,} parameters, every key accounted for")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
