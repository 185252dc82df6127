"""Official PyTorch checkpoints -> our modules, strict in both directions.

    from foley_jax import convert
    cavp = convert.load_torch("diff_foley/cavp", "cavp_epoch66.ckpt")
    kind = convert.recognise("some.ckpt")

    python -m foley_jax.convert diff_foley/cavp cavp_epoch66.ckpt converted/cavp
    python -m foley_jax.convert auto hub:OWNER/NAME/FILE.ckpt converted/model
    python -m foley_jax.convert --list

Every key of the checkpoint is used or on its kind's written ignore list, every parameter is
filled, every shape agrees; otherwise one error names all offenders. Files are read without
running code (`foley_jax/interop/torch_reader.py`). What became of every key is printed and written
to conversion.json beside the converted weights, and so is what was changed on the way: names of
wrappers stripped (torch.compile, DDP, FSDP, ...), half precision, shapes of single numbers.

Where a file holds the last weights and their averages (EMA), the last ones are taken; --ema takes
the averages.

Rules, after a kind's renames (`interop/spec.py`): leaf names weight -> kernel, scale
or embedding, running_mean -> mean, running_var -> var; layouts [out, in, *k] -> [*k, in, out];
kernel axes of size 1 may be absent on one side (a 1x3x3 convolution here is 3x3).
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import importlib
import os
from pathlib import Path
import sys
from typing import Any

from flax import nnx, traverse_util
import jax
import ml_collections
import numpy as np

from foley_jax.interop import fill, hub, spec, torch_reader, weight_folders
from foley_jax.interop import report as conversion_report
from foley_jax.media import file_arguments
from foley_jax.runtime import init_keys, network
from foley_jax.training import task as task_lib

# modules with a KINDS dict; imported only when a kind is looked up
KIND_MODULES = (
    "foley_jax.diff_foley.weights.tables",
    "foley_jax.diff_foley.weights.image_weights",
    "foley_jax.evaluation.networks.weights",
    "foley_jax.vocoders.weights",
    "foley_jax.mm_diffusion.weights",
)
AUTO = "auto"  # on the command line: the kind is read off the file's keys


def kinds() -> dict[str, spec.Checkpoint]:
    """Every known kind of checkpoint by name."""
    found = {}
    for module in KIND_MODULES:
        found.update(importlib.import_module(module).KINDS)
    return found


def _lookup(kind: str) -> spec.Checkpoint:
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
      model_overrides: fields of the kind's `model` to change, e.g. `embed_dim=256`.
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
    description = _lookup(kind)
    weights = torch_reader.read(
        _path(description, source, averaged),
        containers=description.containers,
        folders=description.folders,
        averaged=averaged,
    )
    try:
        module, filled = _module(
            description, weights.state, model_overrides, averaged and not weights.averaged
        )
    except fill.ConversionError as error:
        raise fill.ConversionError(f"{source}: {error}") from error
    return module, dataclasses.replace(filled, notes=(*weights.notes, *filled.notes))


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
    return _module(_lookup(kind), state, model_overrides, averaged)[0]


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
    model = _model_config(kind, overrides)

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


def _model_config(kind: spec.Checkpoint, overrides: Mapping[str, Any]) -> ml_collections.ConfigDict:
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


def run_config(kind: str, **model_overrides: Any) -> ml_collections.ConfigDict:
    """Config saved beside converted weights: the paper's stage with this model, or the model."""
    description = _lookup(kind)
    model = _model_config(description, model_overrides)
    if not description.stage:
        return ml_collections.ConfigDict({"model": model})
    stage, _, variant = description.stage.partition(":")
    config = importlib.import_module(f"configs.{stage}").get_config(variant)
    config.model = model
    return config


def save(kind: str, module: nnx.Module, folder: str | os.PathLike, **model_overrides: Any) -> None:
    """Writes a converted module as a folder that training, sampling and grafts can read."""
    from foley_jax.training.checkpointing import run_directory  # orbax takes seconds to import

    config = run_config(kind, **model_overrides)
    trainable = task_lib.resolve(config).trainable if "task" in config else nnx.Param
    _, params, rest = nnx.split(module, trainable, ...)
    run_directory.save_model(
        folder,
        config=config,
        params=nnx.to_pure_dict(params),
        rest=nnx.to_pure_dict(rest),
        kind=kind,
    )


def parser() -> argparse.ArgumentParser:
    p = file_arguments.Parser(
        prog="python -m foley_jax.convert",
        description="Turns an official PyTorch checkpoint into a folder this package reads.",
        epilog="""examples:
  python -m foley_jax.convert diff_foley/cavp cavp_epoch66.ckpt converted/cavp
  python -m foley_jax.convert stable_diffusion/v1 sd-v1-4-full-ema.ckpt runs/sd --ema
  python -m foley_jax.convert stable_diffusion/v1 hub:CompVis/stable-diffusion-v1-4 runs/sd
  python -m foley_jax.convert --list""",
    )
    p.add_argument(
        "kind", nargs="?", metavar="KIND", help=f"what the file is (see --list), or {AUTO!r}"
    )
    p.add_argument(
        "source",
        nargs="?",
        metavar="SRC",
        help="checkpoint file, diffusers folder, or hub:OWNER/NAME[/FILE]",
    )
    p.add_argument("folder", nargs="?", metavar="DST", help="new folder for the converted model")
    p.add_argument(
        "--ema",
        action="store_true",
        help="take the weights averaged over training where the source has both (default: the "
        "last ones, as the official code)",
    )
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
        kind = recognise(args.source) if args.kind == AUTO else args.kind
        module, filled = convert(kind, args.source, averaged=args.ema)
        save(kind, module, args.folder)
        about = {"kind": kind, "source": args.source, "ema": args.ema}
        report = conversion_report.write(args.folder, filled, **about)
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
    print("\n".join(conversion_report.lines(filled)))
    print(
        f"{args.source} -> {args.folder}: {kind}, {count:,} parameters, every key accounted for "
        f"({report})"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
