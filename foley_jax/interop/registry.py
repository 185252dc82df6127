"""The registry of checkpoint kinds, and what reads a file of a kind into a module.

Each system lists its own kinds (`interop/spec.py`) in its `weights`; the modules that hold them are
imported only when a kind is looked up.

Every key of a checkpoint is used or on its kind's written ignore list, every parameter is filled,
every shape agrees; otherwise one error names all offenders. Rules, after a kind's renames: leaf
names weight -> kernel, scale or embedding, running_mean -> mean, running_var -> var; layouts
[out, in, *k] -> [*k, in, out]; kernel axes of size 1 may be absent on one side (a 1x3x3
convolution here is 3x3).
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import importlib
import json
import os
from pathlib import Path
from typing import Any

from flax import nnx, traverse_util
import jax
import ml_collections
import numpy as np

from foley_jax.interop import fill, hub, spec, torch_reader, weight_folders
from foley_jax.runtime import init_keys, network

# modules with a KINDS dict; imported only when a kind is looked up
KIND_MODULES = (
    "foley_jax.diff_foley.weights.tables",
    "foley_jax.diff_foley.weights.image_weights",
    "foley_jax.evaluation.networks.weights",
    "foley_jax.evaluation.networks.encoder_weights",
    "foley_jax.vocoders.weights",
    "foley_jax.mm_diffusion.weights",
    "foley_jax.mmaudio.weights",
    "foley_jax.mmaudio.clip_weights",
    "foley_jax.mmaudio.synchformer_weights",
)

CONFIG = "config.json"  # of a model's folder, as transformers writes it


def kinds() -> dict[str, spec.Checkpoint]:
    """Every known kind of checkpoint by name."""
    found = {}
    for module in KIND_MODULES:
        found.update(importlib.import_module(module).KINDS)
    return found


def lookup(kind: str) -> spec.Checkpoint:
    known = kinds()
    if kind not in known:
        raise ValueError(f"unknown kind {kind!r}; known kinds: {', '.join(sorted(known))}")
    return known[kind]


def load_torch(
    kind: str, source: str | os.PathLike, *, averaged: bool = False, **model_overrides: Any
) -> nnx.Module:
    """Reads a checkpoint file (or a diffusers folder) into a module.

    Args:
      kind: a name of `kinds()`, e.g. "diff_foley/cavp".
      source: .ckpt, .pt, .pth, .bin or .safetensors file, the index of its shards or one of them,
        a folder of such files, or "hub:OWNER/NAME[/FILE]" on the Hugging Face hub.
      averaged: take weights averaged over training (EMA) where the file has both.
      model_overrides: fields of the kind's `model` to change, e.g. `embed_dim=256`; they go before
        those of a folder's config.json.
    Raises:
      fill.ConversionError: keys or shapes do not fit.
      FileNotFoundError: no such file, here or on the hub.
      ValueError: unknown kind or field, no averages, or a file that holds more than tensors.
    """
    return convert(kind, source, averaged=averaged, **model_overrides)[0]


def convert(
    kind: str, source: str | os.PathLike, *, averaged: bool = False, **model_overrides: Any
) -> tuple[nnx.Module, fill.Filled]:
    """As `load_torch`, with the account of what became of every key."""
    description = lookup(kind)
    model_overrides = {**fields_of(kind, source), **model_overrides}
    weights = _read(description, _path(description, source, averaged), averaged)
    try:
        module, filled = _module(
            description, weights.state, model_overrides, averaged and not weights.averaged
        )
    except fill.ConversionError as error:
        raise fill.ConversionError(f"{source}: {error}") from error
    return module, dataclasses.replace(filled, notes=(*weights.notes, *filled.notes))


def fields_of(kind: str, source: str | os.PathLike) -> dict[str, Any]:
    """The model fields that the config.json in a folder of weights asks for; {} without one.

    Raises:
      ValueError: the file is no JSON object, or describes what the kind's module cannot be.
    """
    configure = lookup(kind).configure
    path = Path(source) / CONFIG
    if configure is None or hub.is_hub(source) or not path.is_file():
        return {}
    try:
        fields = json.loads(path.read_text())
        if not isinstance(fields, dict):
            raise ValueError(f"holds a {type(fields).__name__}, expected an object")
        return dict(configure(fields))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read(kind: spec.Checkpoint, path: Path, averaged: bool) -> torch_reader.Weights:
    """The weights of a source of this kind, in its own format or in PyTorch's."""
    foreign = None if kind.read is None else kind.read(path)
    if foreign is not None:
        return torch_reader.Weights(dict(foreign), (), False)
    return torch_reader.read(
        path, containers=kind.containers, folders=kind.folders, averaged=averaged
    )


def _path(kind: spec.Checkpoint, source: str | os.PathLike, averaged: bool = False) -> Path:
    if not hub.is_hub(source):
        return Path(source)
    return hub.fetch(
        str(source), file_names=kind.file_names, folders=kind.folders, averaged=averaged
    )


def from_state_dict(
    kind: str, state: Mapping[str, np.ndarray], *, averaged: bool = False, **model_overrides: Any
) -> nnx.Module:
    """As `load_torch`, from official keys and NumPy arrays in PyTorch's layout."""
    return _module(lookup(kind), state, model_overrides, averaged)[0]


def recognise(source: str | os.PathLike) -> str:
    """The kind of a checkpoint file or diffusers folder, from its keys; no tensor is converted.

    The kind with the most signature keys wins; the names of wrappers in them do not count, and a
    training code's own prefix ("model.") only where no kind fits with it. Two official files have
    the same keys if the guidance classifier was saved with its autoencoder; then the file's usual
    name decides, and under another name it is taken for the evaluation classifier.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no kind fits, or the file is not readable.
    """
    if hub.is_hub(source):
        source = hub.fetch(str(source))
    path, known = Path(source), {name: k for name, k in kinds().items() if k.signature}
    held = _held(path, known)
    found: dict[str, spec.Checkpoint] = {}
    for outer in (False, True):
        found = found or {
            name: known[name]
            for name, own in held.items()
            if fill.has_signature(known[name], own, outer=outer)
        }
    if not found:
        raise ValueError(
            f"{path} is none of the kinds that can be recognised ({', '.join(sorted(known))}); "
            "name its kind (`python -m foley_jax.convert --list`)"
        )
    return max(found, key=lambda n: (path.name in found[n].file_names, len(found[n].signature)))


def _held(path: Path, known: Mapping[str, spec.Checkpoint]) -> dict[str, list[str]]:
    """The keys that each kind would read in a source, by name of the kind."""
    keys: dict[tuple, list[str]] = {}
    held: dict[str, list[str]] = {}
    for name, kind in known.items():
        folders = kind.folders if path.is_dir() else ()
        if any(not (path / folder).is_dir() for folder in folders):
            continue
        reading = (kind.containers, folders)
        if reading not in keys:
            keys[reading] = _keys(path, *reading)
        held[name] = keys[reading]
    return held


def _keys(path: Path, containers: Sequence[str], folders: Sequence[str]) -> list[str]:
    """The keys of a file; none of a folder in which this kind's files are not."""
    try:
        return torch_reader.read_keys(path, containers=containers, folders=folders)
    except weight_folders.MissingShardError:
        raise
    except FileNotFoundError:
        if path.is_dir():
            return []
        raise


def _module(
    kind: spec.Checkpoint,
    state: Mapping[str, np.ndarray],
    overrides: Mapping[str, Any],
    averaged: bool,
) -> tuple[nnx.Module, fill.Filled]:
    model = model_config(kind, overrides)

    def build(rngs: nnx.Rngs) -> nnx.Module:
        return kind.build(model, rngs=rngs)

    graphdef, abstract = nnx.split(network.shapes(build))
    targets = traverse_util.flatten_dict(nnx.to_pure_dict(abstract))
    named = {_name(path): leaf for path, leaf in targets.items()}
    filled = fill.fill(kind, state, named, averaged=averaged)
    left = [path for path in targets if _name(path) not in filled.values]
    values = {**filled.values, **_initialised(build, left)}
    tree = traverse_util.unflatten_dict({p: values[_name(p)] for p in targets})
    return nnx.merge(graphdef, tree), filled


def model_config(kind: spec.Checkpoint, overrides: Mapping[str, Any]) -> ml_collections.ConfigDict:
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
        flat = traverse_util.flatten_dict(
            nnx.to_pure_dict(nnx.state(build(init_keys.WeightKeys(0))))
        )
        return {_name(path): flat[path] for path in paths}

    return jax.jit(init)()
