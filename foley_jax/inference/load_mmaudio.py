"""MMAudio's networks from a folder of released files, or from the hub."""

from collections.abc import Sequence
import dataclasses
import os
from pathlib import Path
import sys

from flax import nnx
import jax
import ml_collections

from foley_jax.inference import networks
from foley_jax.interop import hub, registry
from foley_jax.mmaudio import rates as rates_lib
from foley_jax.mmaudio import tokens
from foley_jax.mmaudio.models import flow_network
from foley_jax.mmaudio.sampling import pipeline, vocoder
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.runtime import network as network_lib

PREFIX = "mmaudio/"
FLOWS = tuple(PREFIX + name for name in flow_network.CONFIGS)
CLIP, SYNC = "open_clip/vit_h_14_378", "synchformer/visual"
SUBFOLDERS = ("weights", "ext_weights")  # where the official code downloads to
# repositories of the parts that are not MMAudio's own
HUBS = {
    CLIP: "hub:apple/DFN5B-CLIP-ViT-H-14-384",
    "mmaudio/bigvgan_44k": "hub:nvidia/bigvgan_v2_44khz_128band_512x",
}
LICENCE = (
    "MMAudio's weights are licensed CC-BY-NC 4.0 (no commercial use); those of CLIP (Apple), "
    "Synchformer and the vocoder have licences of their own"
)


def load(
    model: str | os.PathLike, *, dtype: str | None = None, devices: int | None = None
) -> pipeline.MMAudio:
    """Loads the networks of MMAudio, and says under which licence they are.

    Args:
      model: a folder with released files under their usual names (also in its subfolders `weights`,
        `ext_weights` and others), a file of a flow network in such a folder (where there are
        several), or "hub:OWNER/NAME[/FILE]". CLIP, Synchformer and CLIP's merges may be missing;
        then there is no text, or no video.
      dtype: compute type of flow network and encoders, "float32" or "bfloat16"; by default
        bfloat16 on accelerators and float32 on CPU. Autoencoder and vocoder are float32.
      devices: of this process that share the work; see `mesh_lib.local_mesh`.
    Raises:
      FileNotFoundError: flow network, autoencoder or vocoder is not there.
      ValueError: several flow networks, or a file that is none.
    """
    mesh = mesh_lib.local_mesh(devices)
    dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    kind, path, folders = find_flow(model)
    name = "16k" if "16k" in kind else "44k"
    print(LICENCE, file=sys.stderr)

    def part(kind: str, dtype: str, *, needed: bool) -> network_lib.Network | None:
        found = _find(kind, model, folders)
        if found is None and needed:
            names = " or ".join(registry.kinds()[kind].file_names)
            raise FileNotFoundError(f"{model} has no {names}; copy it there")
        return found and network(kind, found, dtype)

    generator = part(f"mmaudio/bigvgan_{name}", "float32", needed=True)
    merges = tokens.find_merges(folders)
    rates = rates_lib.RATES[name]
    return pipeline.MMAudio(
        flow=network(kind, path, dtype),
        autoencoder=part(f"mmaudio/vae_{name}", "float32", needed=True),
        vocoder=vocoder.MelGenerator(generator.module(), rates.audio),
        rates=rates,
        clip=part(CLIP, dtype, needed=False),
        sync=part(SYNC, dtype, needed=False),
        tokenizer=merges and tokens.Tokenizer(merges),
        mesh=mesh,
    )


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


def is_mmaudio(model: str | os.PathLike) -> bool:
    """Whether a folder or hub source holds a flow network of MMAudio."""
    if hub.is_hub(model):
        return "mmaudio" in str(model).lower()
    return bool(_flows(folders_of(model)))


def folders_of(model: str | os.PathLike) -> list[Path]:
    """A folder and its subfolders, the official ones first."""
    folder = Path(model)
    if not folder.is_dir():
        return []
    others = sorted(p for p in folder.iterdir() if p.is_dir() and p.name not in SUBFOLDERS)
    return [folder, *(folder / name for name in SUBFOLDERS), *others]


def _flows(folders: Sequence[Path]) -> dict[str, Path]:
    """The flow networks in folders, by their kinds."""
    found = {kind: _in_folders(kind, folders) for kind in FLOWS}
    return {kind: path for kind, path in found.items() if path}


def find_flow(model: str | os.PathLike) -> tuple[str, str | Path, list[Path]]:
    """Returns kind and file of the flow network, and the folders in which its parts may be."""
    if hub.is_hub(model):
        names = [name for kind in FLOWS for name in registry.kinds()[kind].file_names]
        path = hub.fetch(str(model), file_names=names)
        return registry.recognise(path), path, [path.parent, path.parent.parent]
    if networks.is_file(model):
        folder = Path(model).parent
        beside = folder.parent if folder.name in SUBFOLDERS else folder
        return registry.recognise(model), Path(model), folders_of(beside)
    folders = folders_of(model)
    found = _flows(folders)
    if len(found) > 1:
        names = ", ".join(str(path) for path in found.values())
        raise ValueError(f"{model} holds several flow networks; give one of {names}")
    if not found:
        raise FileNotFoundError(f"{model} has no flow network of MMAudio (mmaudio_small_16k.pth)")
    ((kind, path),) = found.items()
    return kind, path, folders


def _in_folders(kind: str, folders: Sequence[Path]) -> Path | None:
    names = registry.kinds()[kind].file_names
    candidates = (folder / name for folder in folders for name in names)
    return next((path for path in candidates if path.is_file()), None)


def _find(kind: str, model: str | os.PathLike, folders: Sequence[Path]) -> Path | None:
    """The file of a part: in the folders, or on the hub if the model comes from there."""
    found = _in_folders(kind, folders)
    if found or not hub.is_hub(model):
        return found
    repository = "/".join(str(model).split("/")[:2])
    try:
        return hub.fetch(HUBS.get(kind, repository), file_names=registry.kinds()[kind].file_names)
    except ValueError:  # the repository has no such file
        return None
