"""Files of MMAudio's networks in folders, as the official code names and keeps them."""

from collections.abc import Sequence
import dataclasses
import os
from pathlib import Path

from flax import nnx
import ml_collections

from foley_jax.interop import registry
from foley_jax.runtime import network as network_lib

CLIP, SYNC = "open_clip/vit_h_14_378", "synchformer/visual"
SUBFOLDERS = ("weights", "ext_weights")  # where the official code downloads to


def folders_of(model: str | os.PathLike) -> list[Path]:
    """A folder and its subfolders, the official ones first."""
    folder = Path(model)
    if not folder.is_dir():
        return []
    others = sorted(p for p in folder.iterdir() if p.is_dir() and p.name not in SUBFOLDERS)
    return [folder, *(folder / name for name in SUBFOLDERS), *others]


def find(kind: str, folders: Sequence[Path]) -> Path | None:
    """Returns the file of a kind of network in one of the folders, if it is there."""
    names = registry.kinds()[kind].file_names
    candidates = (folder / name for folder in folders for name in names)
    return next((path for path in candidates if path.is_file()), None)


def network(kind: str, path: str | os.PathLike, dtype: str) -> network_lib.Network:
    """A released file as a network that computes in `dtype`."""
    description = registry.lookup(kind)
    fields = ml_collections.ConfigDict(dict(description.model))

    def build(rngs: nnx.Rngs) -> nnx.Module:
        return description.build(fields, dtype=dtype, rngs=rngs)

    _, params, rest = nnx.split(registry.load_torch(kind, path), nnx.Param, ...)
    made = network_lib.Network.rebuild(
        build, nnx.Param, nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    )
    return dataclasses.replace(made, origin=f"{kind} {dtype}")
