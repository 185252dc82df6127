"""Diff-Foley's networks: from runs of each stage, or from a folder of official files."""

from collections.abc import Sequence
import os
from pathlib import Path
from typing import NamedTuple

from flax import nnx
import ml_collections

from foley_jax.diff_foley.sampling import pipeline
from foley_jax.inference import networks
from foley_jax.interop import hub, registry
from foley_jax.media import specs
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.runtime import network as network_lib
from foley_jax.training import task as task_lib
from foley_jax.training.checkpointing import exported, run_directory
from foley_jax.vocoders import decode
from foley_jax.vocoders import neural as vocoders

CAVP, LDM = "diff_foley/cavp", "diff_foley/ldm"
GUIDANCE, EVALUATION = "diff_foley/guidance_classifier", "diff_foley/eval_classifier"


def load(
    model: str | os.PathLike,
    *,
    cavp: str | os.PathLike | None = None,
    classifier: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    vocoder: str | os.PathLike | None = None,
    dtype: str | None = None,
    devices: int | None = None,
) -> pipeline.DiffFoley:
    """Loads the networks of Diff-Foley.

    Args:
      model: workdir of an `ldm` run (its newest checkpoint; EMA parameters if there are any), a
        folder of official files under their usual names (`cavp_epoch66.ckpt`,
        `ldm_epoch240.ckpt`, and if they are there `double_guidance_classifier.ckpt` and
        `eval_classifier.ckpt`), or "hub:OWNER/NAME" with such files.
      cavp: workdir or official file of the CAVP the model was trained on; by default the one
        that the run's config names, or the official folder's.
      classifier: workdir or official file of an alignment classifier, or two of them: one
        trained on noised latents guides, one trained on clean latents scores. By default the
        official folder's.
      vocoder: workdir of a `vocoder` run or of a converted BigVGAN; by default Griffin-Lim.
      dtype: compute type, "float32" or "bfloat16"; by default the run's own on accelerators
        and float32 on CPU.
      devices: of this process that share the work; see `mesh_lib.local_mesh`.
    Raises:
      FileNotFoundError: no checkpoint at `model`, `cavp` or `classifier`; the message says how
        to make one.
      ValueError: a folder or file holds another stage, networks that do not fit together, or
        more devices than there are.
    """
    mesh = mesh_lib.local_mesh(devices)
    if hub.is_hub(model) or official_file(model, LDM):
        ldm_source, found_cavp, found_classifiers = _official_folder(model)
        cavp = cavp or found_cavp
        if cavp is None:
            names = " or ".join(registry.kinds()[CAVP].file_names)
            raise FileNotFoundError(f"{model} has no {names}; copy it there, or give --cavp=FILE")
    else:
        ldm_source, found_classifiers = model, []
    ldm = networks.part(ldm_source, "ldm", dtype)
    encoder = networks.part(cavp or resolve_beside(Path(model), ldm.config.cavp), "cavp", dtype)
    if classifier is None:
        sources = found_classifiers
    else:
        alone = isinstance(classifier, str | os.PathLike)
        sources = [classifier] if alone else list(classifier)
    guide, scorer = _classifiers([networks.part(s, "alignment", dtype) for s in sources])
    _check_fit(ldm, encoder, [part for part in (guide, scorer) if part])
    return pipeline.DiffFoley(
        ldm=ldm.network,
        cavp=encoder.network,
        config=ldm.config,
        cavp_config=encoder.config,
        schedule=ldm.task.schedule,
        classifier=guide and guide.network,
        scorer=scorer and scorer.network,
        vocoder=vocoder_of(vocoder, ldm.config) if vocoder else decode.GRIFFIN_LIM,
        mesh=mesh,
    )


class Judge(NamedTuple):
    """An evaluation classifier and the encoder of the features that it reads.

    Attributes:
      classifier, cavp: their networks.
      audio, video: what both read.
      window_frames, num_features: mel frames and features of one judgement.
    """

    classifier: network_lib.Network
    cavp: network_lib.Network
    audio: specs.AudioSpec
    video: specs.VideoSpec
    window_frames: int
    num_features: int


def alignment_judge(
    classifier: str | os.PathLike, cavp: str | os.PathLike, dtype: str | None = None
) -> Judge:
    """Loads the networks of Align Acc.

    Args:
      classifier: workdir of an `alignment` run on clean latents, or the official
        `eval_classifier.ckpt`.
      cavp: workdir or official file of the CAVP that it was trained on.
      dtype: as `load`.
    Raises:
      FileNotFoundError, ValueError: as `load`; also a classifier of noised latents.
    """
    part, encoder = (
        networks.part(classifier, "alignment", dtype),
        networks.part(cavp, "cavp", dtype),
    )
    if part.config.loss.get("noised", True):
        raise ValueError(f"{classifier} was trained on noised latents, Align Acc needs clean ones")
    width, wanted = encoder.network.module().embed_dim, part.network.module().conditioner.in_dim
    if width != wanted:
        raise ValueError(f"{cavp} gives features of width {width}, {classifier} wants {wanted}")
    return Judge(
        classifier=part.network,
        cavp=encoder.network,
        audio=specs.AudioSpec(**part.config.audio),
        video=specs.VideoSpec(**encoder.config.video),
        window_frames=part.config.data.window_frames,
        num_features=part.config.data.num_rows,
    )


def vocoder_of(
    source: str | os.PathLike, config: ml_collections.ConfigDict
) -> vocoders.NeuralVocoder:
    """A neural vocoder for the mels of `config`'s model."""
    own, params, rest = run_directory.load_model_state(source)
    if own.get("task") == "vocoder":
        network = networks.restore(task_lib.resolve(own), params, rest)
        mel = specs.AudioSpec(**own.audio)
        ours = specs.AudioSpec(**config.audio)
        if mel != ours:
            raise ValueError(
                f"{source} was trained on mels of {mel}; the model makes {ours}: train the "
                "vocoder with the model's config.audio"
            )
        return vocoders.NeuralVocoder(network.module().generator, mel, scale="unit")
    kind = own.get("kind", "")
    if not kind.startswith("bigvgan"):
        raise ValueError(
            f"{source} holds {kind or own.get('task')!r}; wanted here is a 'vocoder' run or a "
            "generator converted with `python -m foley_jax.convert bigvgan FILE DIR`"
        )
    build = registry.kinds()[kind].build
    network = network_lib.Network.rebuild(
        lambda rngs: build(own.model, rngs=rngs), nnx.Param, params, rest
    )
    return vocoders.NeuralVocoder.public(network.module(), own.model)


def resolve_beside(run_dir: Path, target: str) -> Path:
    """The CAVP run that a config names: in an exported model's folder, as written, or beside it.

    Raises:
      FileNotFoundError: none is there.
      ValueError: the last two are, and are not the same; with the wrong one all would seem well.
    """
    inside = run_dir / networks.CAVP
    if exported.is_one(run_dir) and exported.is_one(inside):
        return inside
    candidates = (Path(target), run_dir.parent / Path(target).name)
    found = {path.resolve(): path for path in candidates if (path / "config.json").exists()}
    if len(found) > 1:
        raise ValueError(
            f"{run_dir} was trained on features of {target!r}: is that {candidates[0]} here, or "
            f"{candidates[1]} beside it? Give the right one with --cavp=DIR"
        )
    if found:
        return next(iter(found.values()))
    raise FileNotFoundError(
        f"{run_dir} was trained on features of {target!r}, which is neither there nor at "
        f"{run_dir.parent / Path(target).name}; give its folder with --cavp=DIR"
    )


def official_file(folder: str | os.PathLike, kind: str) -> Path | None:
    """The file of that kind under its usual name in a folder, if it is there."""
    names = registry.kinds()[kind].file_names
    return next((Path(folder) / n for n in names if (Path(folder) / n).is_file()), None)


def _official_folder(model: str | os.PathLike) -> tuple[Path, Path | None, list[Path]]:
    """Files of the latent diffusion model, CAVP, and the classifiers that are there."""
    if not hub.is_hub(model):
        found = [official_file(model, kind) for kind in (GUIDANCE, EVALUATION)]
        files = official_file(model, LDM), official_file(model, CAVP)
        return *files, [path for path in found if path]
    files = {}
    for kind in (LDM, CAVP, GUIDANCE, EVALUATION):
        try:
            files[kind] = hub.fetch(str(model), file_names=registry.kinds()[kind].file_names)
        except ValueError:  # the repository has no such file
            if kind in (LDM, CAVP):
                raise
    return files[LDM], files[CAVP], [files[k] for k in (GUIDANCE, EVALUATION) if k in files]


def _classifiers(
    parts: Sequence[networks.Part],
) -> tuple[networks.Part | None, networks.Part | None]:
    """(the one for noised latents, the one for clean latents)."""
    noised = [part.config.loss.get("noised", True) for part in parts]
    guides = [part for part, is_noised in zip(parts, noised) if is_noised]
    scorers = [part for part, is_noised in zip(parts, noised) if not is_noised]
    if len(guides) > 1 or len(scorers) > 1:
        raise ValueError(
            f"{len(guides)} classifiers for noised latents and {len(scorers)} for clean ones; "
            "give at most one of each"
        )
    return (guides or [None])[0], (scorers or [None])[0]


def _check_fit(
    ldm: networks.Part, cavp: networks.Part, classifiers: Sequence[networks.Part]
) -> None:
    """Rates and widths that must agree between networks of different runs."""
    for name, part in (("the model", ldm), *(("the classifier", part) for part in classifiers)):
        if part.config.video.fps != cavp.config.video.fps:
            raise ValueError(
                f"{name} was trained on {part.config.video.fps:g} features a second, CAVP makes "
                f"{cavp.config.video.fps:g}; give the CAVP it was trained on with --cavp=DIR"
            )
    model, width = ldm.network.module(), cavp.network.module().embed_dim
    wanted = {"the latent diffusion model": model.conditioner.in_dim}
    channels = model.autoencoder.z_channels
    for part in classifiers:
        other = part.network.module()
        wanted["the alignment classifier"] = other.conditioner.in_dim
        if other.classifier.in_channels != channels:
            raise ValueError(
                f"the alignment classifier takes latents of {other.classifier.in_channels} "
                f"channels, the model makes {channels}; they need the same autoencoder"
            )
    for name, in_dim in wanted.items():
        if in_dim != width:
            raise ValueError(
                f"CAVP's features have width {width}, {name} wants {in_dim}; give the CAVP it was "
                "trained on with --cavp=DIR"
            )
