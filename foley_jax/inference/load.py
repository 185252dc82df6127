"""Models for sampling: from run folders, converted or official files, or the Hugging Face hub."""

from collections.abc import Mapping, Sequence
import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx
import jax
import ml_collections

from foley_jax.diff_foley.sampling import decode, pipeline
from foley_jax.inference import foley, official, sounding_video
from foley_jax.interop import hub, registry, torch_reader
from foley_jax.media import specs
from foley_jax.mm_diffusion.sampling import pipeline as mm_pipeline
from foley_jax.runtime import network as network_lib
from foley_jax.runtime import sharding
from foley_jax.training import task as task_lib
from foley_jax.training.checkpointing import run_directory
from foley_jax.vocoders import neural as vocoders

CAVP, LDM = "diff_foley/cavp", "diff_foley/ldm"
SOUNDING, UPSCALING = "mm_diffusion", "mm_super_resolution"  # stages
# networks beside the model itself, and their compute type
NETWORKS = ("cavp", "classifier", "vocoder", "super_resolution", "dtype")
GUIDANCE, EVALUATION = "diff_foley/guidance_classifier", "diff_foley/eval_classifier"


class _Part(NamedTuple):
    """One network with the config and the task that built it."""

    config: ml_collections.ConfigDict
    task: Any
    network: network_lib.Network


def any_system(
    model: str | os.PathLike,
    *,
    cavp: str | os.PathLike | None = None,
    classifier: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    vocoder: str | os.PathLike | None = None,
    super_resolution: str | os.PathLike | None = None,
    dtype: str | None = None,
    devices: int | None = None,
) -> foley.Foley | sounding_video.SoundingVideo:
    """Loads a trained, converted or official model of either system.

    Diff-Foley's (see `load.diff_foley`) gives a `Foley`; MM-Diffusion's, for which
    `super_resolution` may be given (see `load.mm_diffusion`), a `SoundingVideo`.

    Raises:
      ValueError: a network is given that the model's system does not know.
    """
    others = {"cavp": cavp, "classifier": classifier, "vocoder": vocoder}
    if makes_sounding_video(model):
        _refuse(others, f"{model} is MM-Diffusion's")
        networks = mm_diffusion(
            model, super_resolution=super_resolution, dtype=dtype, devices=devices
        )
        return sounding_video.SoundingVideo(networks, str(model))
    _refuse({"super_resolution": super_resolution}, f"{model} is Diff-Foley's")
    networks = diff_foley(
        model, cavp=cavp, classifier=classifier, vocoder=vocoder, dtype=dtype, devices=devices
    )
    return foley.Foley(networks, str(model))


def _refuse(networks: dict[str, object], why: str) -> None:
    given = [name for name, network in networks.items() if network]
    if given:
        raise ValueError(f"{why}, which has no {' and no '.join(given)}; leave it out")


def diff_foley(
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
      devices: of this process that share the work; see `sharding.local_mesh`.
    Raises:
      FileNotFoundError: no checkpoint at `model`, `cavp` or `classifier`; the message says how
        to make one.
      ValueError: a folder or file holds another stage, networks that do not fit together, or
        more devices than there are.
    """
    mesh = sharding.local_mesh(devices)
    if hub.is_hub(model) or _official_file(model, LDM):
        ldm_source, found_cavp, found_classifiers = _official_folder(model)
        cavp = cavp or found_cavp
        if cavp is None:
            names = " or ".join(registry.kinds()[CAVP].file_names)
            raise FileNotFoundError(f"{model} has no {names}; copy it there, or give --cavp=FILE")
    else:
        ldm_source, found_classifiers = model, []
    ldm = _part(ldm_source, "ldm", dtype)
    encoder = _part(cavp or _resolve_beside(Path(model), ldm.config.cavp), "cavp", dtype)
    if classifier is None:
        sources = found_classifiers
    else:
        alone = isinstance(classifier, str | os.PathLike)
        sources = [classifier] if alone else list(classifier)
    guide, scorer = _classifiers([_part(s, "alignment", dtype) for s in sources])
    _check_fit(ldm, encoder, [part for part in (guide, scorer) if part])
    return pipeline.DiffFoley(
        ldm=ldm.network,
        cavp=encoder.network,
        config=ldm.config,
        cavp_config=encoder.config,
        schedule=ldm.task.schedule,
        classifier=guide and guide.network,
        scorer=scorer and scorer.network,
        vocoder=load_vocoder(vocoder, ldm.config) if vocoder else decode.GRIFFIN_LIM,
        mesh=mesh,
    )


def mm_diffusion(
    model: str | os.PathLike,
    *,
    super_resolution: str | os.PathLike | None = None,
    dtype: str | None = None,
    devices: int | None = None,
) -> mm_pipeline.MMDiffusion:
    """Loads the networks of MM-Diffusion.

    Args:
      model: workdir of an `mm_diffusion` run or of the converted base model, or its file.
      super_resolution: the same of an `mm_super_resolution` run; by default pictures stay small.
      dtype: compute type; see `diff_foley`.
      devices: of this process that share the work; see `sharding.local_mesh`.
    Raises:
      FileNotFoundError: no checkpoint there; the message says how to make one.
      ValueError: another stage, or networks whose picture sizes do not fit together.
    """
    mesh = sharding.local_mesh(devices)
    base = _part(model, SOUNDING, dtype)
    if super_resolution is None:
        return mm_pipeline.MMDiffusion(base.network, base.config, mesh=mesh)
    large = _part(super_resolution, UPSCALING, dtype)
    has = (base.config.video.height, base.config.video.width)
    low = large.config.data.degradation
    if (low.height, low.width) != has:
        raise ValueError(
            f"{super_resolution} enlarges pictures of {low.height}x{low.width}, the model makes "
            f"{has[0]}x{has[1]}; train one for that size (config.data.degradation)"
        )
    return mm_pipeline.MMDiffusion(
        base.network,
        base.config,
        upscaler=large.network,
        upscaler_config=large.config,
        mesh=mesh,
    )


def makes_sounding_video(model: str | os.PathLike) -> bool:
    """Whether a run folder or file holds MM-Diffusion's base model (else: Diff-Foley's)."""
    if _is_file(model):
        return registry.recognise(model).startswith("mm_diffusion/")
    if hub.is_hub(model) or _official_file(model, LDM):
        return False
    return run_directory.load_config(model).get("task") == SOUNDING


class Judge(NamedTuple):
    """An evaluation classifier and the encoder of the rows that it reads.

    Attributes:
      classifier, cavp: their networks.
      audio, video: what both read.
      window_frames, num_rows: mel frames and rows of one judgement.
    """

    classifier: network_lib.Network
    cavp: network_lib.Network
    audio: specs.AudioSpec
    video: specs.VideoSpec
    window_frames: int
    num_rows: int


def alignment_judge(
    classifier: str | os.PathLike, cavp: str | os.PathLike, dtype: str | None = None
) -> Judge:
    """Loads the networks of Align Acc.

    Args:
      classifier: workdir of an `alignment` run on clean latents, or the official
        `eval_classifier.ckpt`.
      cavp: workdir or official file of the CAVP that it was trained on.
      dtype: as `diff_foley`.
    Raises:
      FileNotFoundError, ValueError: as `diff_foley`; also a classifier of noised latents.
    """
    part, encoder = _part(classifier, "alignment", dtype), _part(cavp, "cavp", dtype)
    if part.config.loss.get("noised", True):
        raise ValueError(f"{classifier} was trained on noised latents, Align Acc needs clean ones")
    width, wanted = encoder.network.module().embed_dim, part.network.module().conditioner.in_dim
    if width != wanted:
        raise ValueError(f"{cavp} gives rows of width {width}, {classifier} wants {wanted}")
    return Judge(
        classifier=part.network,
        cavp=encoder.network,
        audio=specs.AudioSpec(**part.config.audio),
        video=specs.VideoSpec(**encoder.config.video),
        window_frames=part.config.data.window_frames,
        num_rows=part.config.data.num_rows,
    )


def load_vocoder(
    source: str | os.PathLike, config: ml_collections.ConfigDict
) -> vocoders.NeuralVocoder:
    """A neural vocoder for the mels of `config`'s model."""
    own, params, rest = run_directory.load_model_state(source)
    if own.get("task") == "vocoder":
        network = _restore(task_lib.resolve(own), params, rest)
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


def _restore(task: task_lib.Task, params: Mapping, rest: Mapping) -> network_lib.Network:
    """The task's model with a checkpoint's arrays."""
    network = network_lib.Network.rebuild(task.build, task.trainable, params, rest)
    return dataclasses.replace(network, origin=task.config.to_json(sort_keys=True))


def _resolve_beside(run_dir: Path, target: str) -> Path:
    """A run named in a config: as written, or next to the run that names it.

    Raises:
      FileNotFoundError: neither is there.
      ValueError: both are, and are not the same; with the wrong one all would seem well.
    """
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


def _official_file(folder: str | os.PathLike, kind: str) -> Path | None:
    """The file of that kind under its usual name in a folder, if it is there."""
    names = registry.kinds()[kind].file_names
    return next((Path(folder) / n for n in names if (Path(folder) / n).is_file()), None)


def _official_folder(model: str | os.PathLike) -> tuple[Path, Path | None, list[Path]]:
    """Files of the latent diffusion model, CAVP, and the classifiers that are there."""
    if not hub.is_hub(model):
        found = [_official_file(model, kind) for kind in (GUIDANCE, EVALUATION)]
        files = _official_file(model, LDM), _official_file(model, CAVP)
        return *files, [path for path in found if path]
    files = {}
    for kind in (LDM, CAVP, GUIDANCE, EVALUATION):
        try:
            files[kind] = hub.fetch(str(model), file_names=registry.kinds()[kind].file_names)
        except ValueError:  # the repository has no such file
            if kind in (LDM, CAVP):
                raise
    return files[LDM], files[CAVP], [files[k] for k in (GUIDANCE, EVALUATION) if k in files]


def _is_file(source: str | os.PathLike) -> bool:
    return Path(source).suffix in torch_reader.ENDINGS and Path(source).is_file()


def _part(source: str | os.PathLike, stage: str, dtype: str | None) -> _Part:
    """A network from a run folder, an official file, or a hub file."""
    if hub.is_hub(source):
        source = hub.fetch(str(source))
    if _is_file(source):
        kind = registry.recognise(source)
        config = official.run_config(kind)
        config.kind = kind
        module = registry.load_torch(kind, source)
        state = None
    else:
        config, *state = run_directory.load_model_state(source)
    if config.get("task") != stage:
        holds = config.get("kind") or config.get("task")
        raise ValueError(f"{source} holds {holds!r}; wanted here: {stage!r}")
    if dtype or jax.default_backend() == "cpu":
        config.dtype = dtype or "float32"
    task = task_lib.resolve(config)
    if state is None:
        _, *state = nnx.split(module, task.trainable, ...)
        state = [nnx.to_pure_dict(part) for part in state]
    return _Part(config, task, _restore(task, *state))


def _classifiers(parts: Sequence[_Part]) -> tuple[_Part | None, _Part | None]:
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


def _check_fit(ldm: _Part, cavp: _Part, classifiers: Sequence[_Part]) -> None:
    """Widths that must agree between networks of different runs."""
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
                f"CAVP's rows have width {width}, {name} wants {in_dim}; give the CAVP it was "
                "trained on with --cavp=DIR"
            )
