"""MMAudio's networks from a folder of released files, or from the hub."""

from collections.abc import Sequence
import os
from pathlib import Path
import sys

import jax
from jax.sharding import Mesh

from foley_jax.inference import networks
from foley_jax.interop import hub, registry
from foley_jax.mmaudio import files, own_runs, tokens
from foley_jax.mmaudio import rates as rates_lib
from foley_jax.mmaudio.models import flow_network, small_encoders
from foley_jax.mmaudio.sampling import pipeline, vocoder
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.runtime import network as network_lib
from foley_jax.training.checkpointing import run_directory

PREFIX, STAGE = "mmaudio/", "mmaudio"
FLOWS = tuple(PREFIX + name for name in flow_network.CONFIGS)
# repositories of the parts that are not MMAudio's own
HUBS = {
    files.CLIP: "hub:apple/DFN5B-CLIP-ViT-H-14-384",
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
        several), "hub:OWNER/NAME[/FILE]", or a run of configs/mmaudio.py, whose `config.parts` is
        such a folder with the other networks, or which names runs of an autoencoder and a CAVP
        (`config.autoencoder`, `config.cavp`) that are used with Griffin-Lim. CLIP, Synchformer and
        CLIP's merges may be missing; then there is no text, or no video.
      dtype: compute type of flow network and encoders, "float32" or "bfloat16"; by default
        bfloat16 on accelerators and float32 on CPU. Autoencoder and vocoder are float32.
      devices: of this process that share the work; see `mesh_lib.local_mesh`.
    Raises:
      FileNotFoundError: flow network, autoencoder or vocoder is not there.
      ValueError: several flow networks, or a file that is none.
    """
    mesh = mesh_lib.local_mesh(devices)
    dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    student_steps = None
    if is_run(model):
        own = networks.part(model, STAGE, dtype)
        student_steps = _student_steps(own)
        if own.config.get("autoencoder"):
            return _with_own_parts(own, dtype, mesh)
        flow, rates, window_s = own.network, own.task.rates, own.config.data.window_s
        model = own.config.parts
        folders = files.folders_of(model)
    else:
        kind, path, folders = find_flow(model)
        flow = files.network(kind, path, dtype)
        rates, window_s = rates_lib.RATES["16k" if "16k" in kind else "44k"], rates_lib.WINDOW_S
    print(LICENCE, file=sys.stderr)

    def part(kind: str, dtype: str, *, needed: bool) -> network_lib.Network | None:
        found = _find(kind, model, folders)
        if found is None and needed:
            names = " or ".join(registry.kinds()[kind].file_names)
            raise FileNotFoundError(f"{model} has no {names}; copy it there")
        return found and files.network(kind, found, dtype)

    generator = part(f"mmaudio/bigvgan_{rates.name}", "float32", needed=True)
    merges = tokens.find_merges(folders)
    return pipeline.MMAudio(
        flow=flow,
        autoencoder=part(f"mmaudio/vae_{rates.name}", "float32", needed=True),
        vocoder=vocoder.MelGenerator(generator.module(), rates.audio),
        rates=rates,
        clip=part(files.CLIP, dtype, needed=False),
        sync=part(files.SYNC, dtype, needed=False),
        tokenizer=merges and tokens.Tokenizer(merges),
        window_s=window_s,
        student_steps=student_steps,
        mesh=mesh,
    )


def _student_steps(own: networks.Part) -> int | None:
    return own.config.get("distillation", {}).get("steps")


def _with_own_parts(own: networks.Part, dtype: str, mesh: Mesh | None) -> pipeline.MMAudio:
    """A run's flow network with autoencoder and CAVP of other runs of ours, and Griffin-Lim."""
    rates = own.task.rates
    autoencoder_rates, autoencoder = own_runs.autoencoder(own.config.autoencoder)
    if autoencoder_rates != rates:
        raise ValueError(
            f"{own.config.autoencoder} makes mels of {autoencoder_rates.name}, the flow network "
            f"was trained on {rates.name}"
        )
    encoders = own_runs.encoders(own.config.cavp, dtype)
    return pipeline.MMAudio(
        flow=own.network,
        autoencoder=autoencoder,
        vocoder=vocoder.GriffinLim(rates),
        rates=rates,
        clip=encoders.network,
        sync=encoders.network,
        tokenizer=small_encoders.Words(),
        clip_video=encoders.clip_video,
        sync_video=encoders.sync_video,
        window_s=own.config.data.window_s,
        student_steps=_student_steps(own),
        mesh=mesh,
    )


def is_run(model: str | os.PathLike) -> bool:
    """Whether a folder is a run of MMAudio's stage, or of its students."""
    if hub.is_hub(model) or not (Path(model) / run_directory.CONFIG).exists():
        return False
    task = run_directory.load_config(model).get("task")
    return networks.STUDENTS.get(task, task) == STAGE


def is_mmaudio(model: str | os.PathLike) -> bool:
    """Whether a folder or hub source holds a flow network of MMAudio, or is a run of it."""
    if hub.is_hub(model):
        return "mmaudio" in str(model).lower()
    return is_run(model) or bool(_flows(files.folders_of(model)))


def _flows(folders: Sequence[Path]) -> dict[str, Path]:
    """The flow networks in folders, by their kinds."""
    found = {kind: files.find(kind, folders) for kind in FLOWS}
    return {kind: path for kind, path in found.items() if path}


def find_flow(model: str | os.PathLike) -> tuple[str, str | Path, list[Path]]:
    """Returns kind and file of the flow network, and the folders in which its parts may be."""
    if hub.is_hub(model):
        names = [name for kind in FLOWS for name in registry.kinds()[kind].file_names]
        path = hub.fetch(str(model), file_names=names)
        return registry.recognise(path), path, [path.parent, path.parent.parent]
    if networks.is_file(model):
        folder = Path(model).parent
        beside = folder.parent if folder.name in files.SUBFOLDERS else folder
        return registry.recognise(model), Path(model), files.folders_of(beside)
    folders = files.folders_of(model)
    found = _flows(folders)
    if len(found) > 1:
        names = ", ".join(str(path) for path in found.values())
        raise ValueError(f"{model} holds several flow networks; give one of {names}")
    if not found:
        raise FileNotFoundError(f"{model} has no flow network of MMAudio (mmaudio_small_16k.pth)")
    ((kind, path),) = found.items()
    return kind, path, folders


def _find(kind: str, model: str | os.PathLike, folders: Sequence[Path]) -> Path | None:
    """The file of a part: in the folders, or on the hub if the model comes from there."""
    found = files.find(kind, folders)
    if found or not hub.is_hub(model):
        return found
    repository = "/".join(str(model).split("/")[:2])
    try:
        return hub.fetch(HUBS.get(kind, repository), file_names=registry.kinds()[kind].file_names)
    except ValueError:  # the repository has no such file
        return None
