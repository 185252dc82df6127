"""Writes shards of CAVP features: what the latent diffusion model is trained on.

    python -m data_prep.features shards features --model=runs/cavp
    python -m data_prep.features shards clip_rows --encoder=clip --model=converted/clip
    python -m data_prep.features shards features --model=runs/cavp --process_index=3 \\
        --process_count=8                                     # an eighth of the shards
    python -m data_prep.features shards features --model=runs/cavp --distributed

Every clip gets one unit feature per frame; the audio is copied and the frames are dropped. Run it
again after a stop: finished shards are kept.

Frames see each other within a group. The official grouping is 40 frames, counted from a clip's
beginning; --group_frames=32 are groups of the length of a training window, and with --seamless
groups overlap, so that a feature depends on the frames around it and never on where a group ends.
Clips of 40 frames, 10 s of the paper's 4 a second, have the same features either way; of clips of
more, generation with preset "official" has the official features, with preset "default" the
seamless ones: give --seamless at higher rates.

Large sets are divided among processes by shards: give each its --process_index, or let a cluster
do so with --distributed (TPU slices, Slurm; one process for all devices of a host). They share
the folders only; whoever finishes last writes the index.

The paper's other conditions are encoders of single images, converted from `clip/vit_b32` or
`torchvision/resnet50`: `--encoder=clip` (512 numbers) or `--encoder=resnet50` (2048; for training
set `--config.model.conditioner.in_dim=2048`). Their shards need images of the encoder's size.

Two controls for experiments, each into a folder of its own: `--permute` gives every training clip
the features of another one, a CAVP run of `--config.total_steps=0` those of an untrained CAVP.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import math
import pathlib
import sys

from flax import nnx
import jax
import numpy as np
import tqdm

from data_prep import batched_rows, divided_shards
from foley_jax.data import pipeline as data_pipeline
from foley_jax.data import records
from foley_jax.diff_foley.models import image_encoders
from foley_jax.diff_foley.sampling import features
from foley_jax.media import file_arguments, specs
from foley_jax.runtime import compile_cache, distributed, limits, reasons
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.runtime import network as network_lib
from foley_jax.training import task as task_lib
from foley_jax.training.checkpointing import run_directory

PERMUTED_SPLIT = "train"


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A CAVP ready to run, and what its features depend on.

    Attributes:
      encode_fn: see `features.EncodeFn`.
      video: rate and size of the frames it wants.
      identity: JSON-able; equal for equal weights.
      devices: that a batch is divided among.
    """

    encode_fn: features.EncodeFn
    video: specs.VideoSpec
    identity: dict[str, str | int]
    devices: int = 1


@dataclasses.dataclass(frozen=True)
class Grouping:
    """Which frames of a clip see each other.

    Attributes:
      frames: of a group; the official 40.
      seamless: groups overlap, so that features do not depend on where they end.
    """

    frames: int = features.GROUP_FRAMES
    seamless: bool = False

    @property
    def name(self) -> str:
        """For the settings of a set."""
        return f"{self.frames} frames{', seamless' if self.seamless else ''}"

    def bound(self, extractor: Extractor) -> Callable[[np.ndarray], np.ndarray]:
        """uint8 [B, T, H, W, 3] -> float32 features [B, T, D]."""
        extract = features.extract_seamless_batch if self.seamless else features.extract_batch
        return functools.partial(extract, extractor.encode_fn, group_frames=self.frames)


def load(model: pathlib.Path, mesh: jax.sharding.Mesh | None = None) -> Extractor:
    """Loads the CAVP of a run or converted folder.

    Args:
      mesh: devices to divide batches among; None is one.
    Raises:
      FileNotFoundError: no checkpoint there.
      ValueError: the folder holds another kind of model.
    """
    config, params, rest = run_directory.load_model_state(model)
    if config.get("task") != "cavp":
        raise ValueError(f"{model} holds {config.get('task')!r}, features need a 'cavp' run")
    if jax.default_backend() == "cpu":
        config.dtype = "float32"  # half precision is slower there
    task = task_lib.resolve(config)
    network = network_lib.Network.rebuild(task.build, task.trainable, params, rest)
    identity = _identity(model, network, str(config.dtype))
    video = specs.VideoSpec(**config.video)
    return _extractor(network, features.encode_frames, video, identity, mesh)


def load_image_encoder(
    model: pathlib.Path, encoder: str, *, fps: float, mesh: jax.sharding.Mesh | None = None
) -> Extractor:
    """Loads a converted image encoder ("clip" or "resnet50") for shards of `fps` frames/s.

    Args:
      mesh: see `load`.
    Raises:
      FileNotFoundError: no converted weights there.
      ValueError: the folder holds another kind of model.
    """
    config, params, rest = run_directory.load_model_state(model)
    fields = config.model if "model" in config else {}
    if fields.get("encoder") != encoder:
        kind = {"clip": "clip/vit_b32", "resnet50": "torchvision/resnet50"}[encoder]
        raise ValueError(
            f"{model} holds no {encoder} weights; make them with "
            f"`python -m foley_jax.convert {kind} FILE FOLDER`"
        )
    network = network_lib.Network.rebuild(
        lambda rngs: image_encoders.from_config(fields, rngs=rngs), nnx.Param, params, rest
    )
    video = specs.VideoSpec(fps, fields.image_size, fields.image_size)
    identity = _identity(model, network, "float32")
    return _extractor(network, image_encoders.encode_frames, video, identity, mesh)


def _extractor(
    network: network_lib.Network,
    encode: Callable,
    video: specs.VideoSpec,
    identity: dict[str, str | int],
    mesh: jax.sharding.Mesh | None,
) -> Extractor:
    encode_fn = network.on(mesh).jit(encode)
    return Extractor(encode_fn, video, identity, 1 if mesh is None else mesh.size)


def _identity(
    model: pathlib.Path, network: network_lib.Network, dtype: str
) -> dict[str, str | int]:
    return {"model": str(model), "weights_crc32": network.crc32(), "dtype": dtype}


def extract_set(
    shards: pathlib.Path,
    out: pathlib.Path,
    extractor: Extractor,
    *,
    permute: bool = False,
    seed: int = 0,
    batch: int = 16,
    grouping: Grouping = Grouping(),
    process_index: int = 0,
    process_count: int = 1,
    wait: bool = False,
) -> records.Index | None:
    """Writes the feature shards of a whole set, or this process's share of them.

    Args:
      shards: a prepared set with frames.
      out: folder to write; unfinished work of the same settings is continued.
      permute: control, see the module.
      seed: of the permutation.
      batch: clips encoded together; rounded up to a multiple of the devices.
      grouping: frames that see each other.
      process_index, process_count: which share; see `divided_shards`.
      wait: returns only when all processes have finished; process 0 writes the index.
    Returns:
      The set's index, if all shards are there; None if other processes are still at work.
    Raises:
      ValueError: the set does not fit the model, a shard is damaged, or `out` was begun with
        other settings.
    """
    divided_shards.check_share(process_index, process_count)
    seed = limits.seed(seed)
    index = records.read_index(shards)
    _check_video(shards, index, extractor.video)
    if permute and PERMUTED_SPLIT not in index.splits:
        raise ValueError(f"{shards} has no split {PERMUTED_SPLIT!r} to permute: {index.splits}")
    _claim(out, shards, index, extractor, grouping, seed if permute else None)
    mine = list(divided_shards.share(index, process_index, process_count))
    features_fn = functools.partial(
        batched_rows.rows_of,
        extract_fn=grouping.bound(extractor),
        batch=math.ceil(batch / extractor.devices) * extractor.devices,
        devices=extractor.devices,
    )
    with tqdm.tqdm(total=sum(len(storage) for _, storage in mine), unit="clip") as bar:
        for shard, storage in mine:
            if divided_shards.finished(out, shard) is None:
                source = data_pipeline.open_source(shards, shard.split)
                donors = np.arange(len(source))
                if permute and shard.split == PERMUTED_SPLIT:
                    donors = derangement(len(source), seed)
                _write_shard(out, shard, source, storage, donors, features_fn)
            bar.update(len(storage))
    if wait:
        infos = divided_shards.wait_for_all(out, index)
    else:
        infos = divided_shards.all_finished(out, index)
    return (
        None if infos is None else _finish(out, index, infos, write=not wait or process_index == 0)
    )


def _finish(
    out: pathlib.Path, index: records.Index, infos: list[records.ShardInfo], *, write: bool
) -> records.Index:
    width = data_pipeline.Source([out / infos[0].file], [infos[0].num_records])[0].cavp_TD.shape[1]
    result = dataclasses.replace(index, shards=tuple(infos), cavp_dim=int(width))
    if write:
        divided_shards.remove_left_overs(out)
        records.write_index(out, result)
    return result


def _check_video(shards: pathlib.Path, index: records.Index, video: specs.VideoSpec) -> None:
    has, wants = (index.fps, index.height, index.width), (video.fps, video.height, video.width)
    if has != wants:
        raise ValueError(
            f"{shards} holds {has[0]:g} frames/s of {has[1]}x{has[2]}, the model wants "
            f"{wants[0]:g} of {wants[1]}x{wants[2]}; prepare the videos with --fps={wants[0]:g} "
            f"--size={wants[1]}"
        )
    data_pipeline.check_fit(shards, index, video)


def _claim(
    out: pathlib.Path,
    shards: pathlib.Path,
    index: records.Index,
    extractor: Extractor,
    grouping: Grouping,
    permute_seed: int | None,
) -> None:
    """Notes the settings in `out`, or checks that they are the ones noted there."""
    if out.resolve() == shards.resolve():
        raise ValueError(f"the features need a folder of their own, not {shards}")
    settings = {
        "source": [shard.sha256 for shard in index.shards],
        "permute_seed": permute_seed,
        "grouping": grouping.name,
        **extractor.identity,
    }
    # the same weights may lie at another path; folders of earlier versions do not say how frames
    # were grouped: officially
    divided_shards.claim(out, settings, free=("model",), earlier={"grouping": Grouping().name})


def derangement(count: int, seed: int) -> np.ndarray:
    """Who gives features to clip i: a random cycle through all clips, so never the clip itself.

    Raises:
      ValueError: fewer than two clips.
    """
    if count < 2:
        raise ValueError(f"{count} training clips cannot swap features; --permute needs two")
    order = np.random.default_rng(seed).permutation(count)
    donors = np.empty(count, np.int64)
    donors[order] = np.roll(order, 1)
    return donors


def _write_shard(
    out: pathlib.Path,
    shard: records.ShardInfo,
    source: data_pipeline.Source,
    storage: range,
    donors: np.ndarray,
    features_fn: Callable[[data_pipeline.Source, Sequence[int]], Iterator[np.ndarray]],
) -> None:
    number = int(pathlib.Path(shard.file).stem.rsplit("-", 1)[1])
    video_features = features_fn(source, donors[storage.start : storage.stop])
    with records.ShardWriter(out, shard.split, number) as writer:
        for place, features_TD in zip(storage, video_features):
            clip = source[place]
            if len(features_TD) != len(clip.frames):
                # features of a longer or shorter clip: cut, or repeated from the start
                features_TD = features_TD[np.arange(len(clip.frames)) % len(features_TD)]
            writer.add(dataclasses.replace(clip, frames=[], cavp_TD=features_TD.astype(np.float16)))
    divided_shards.note_finished(out, writer.info)


def _parser() -> argparse.ArgumentParser:
    parser = file_arguments.Parser(
        prog="python -m data_prep.features",
        description=__doc__,
        epilog=compile_cache.HELP,
    )
    add = parser.add_argument
    add("shards", type=pathlib.Path, help="prepared set with frames")
    add("out", type=pathlib.Path, help="folder to write")
    add("--model", type=pathlib.Path, required=True, help="CAVP run or converted folder")
    add("--encoder", choices=("cavp", "clip", "resnet50"), default="cavp", help="its kind (cavp)")
    add("--group_frames", type=int, default=features.GROUP_FRAMES, help="of a group (40)")
    add("--seamless", action="store_true", help="overlapping groups: no borders within a clip")
    add("--permute", action="store_true", help="control: features of another clip")
    add("--seed", type=limits.seed_argument, default=0, help="of --permute (0)")
    add("--batch", type=int, default=16, help="clips encoded together (16)")
    add("--devices", type=int, help="of this process; all (of a CPU one)")
    add("--process_index", type=int, default=0, help="which share of the shards to make (0)")
    add("--process_count", type=int, default=1, help="how many shares there are (1)")
    add(
        "--distributed",
        action="store_true",
        help="join the other processes of a cluster, or of JAX_COORDINATOR_ADDRESS, "
        "JAX_NUM_PROCESSES and JAX_PROCESS_ID, and take this one's share",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = _parser()
    args = parser.parse_args(argv)
    if min(args.batch, args.group_frames) < 1:
        parser.error("--batch and --group_frames must be positive")
    if args.distributed and args.process_count != 1:
        parser.error("--distributed finds the process's share itself; leave out --process_count")
    try:
        if args.distributed:
            distributed.join_processes()
            args.process_index, args.process_count = jax.process_index(), jax.process_count()
        compile_cache.turn_on()
        index = extract_set(
            args.shards,
            args.out,
            _load(args),
            permute=args.permute,
            seed=args.seed,
            batch=args.batch,
            grouping=Grouping(args.group_frames, args.seamless),
            process_index=args.process_index,
            process_count=args.process_count,
            wait=args.distributed,
        )
    except (OSError, ValueError) as error:
        print(f"error: {reasons.of(error)}", file=sys.stderr)
        distributed.end_alone(1)
        sys.exit(1)
    if index is None:
        print(
            f"share {args.process_index} of {args.process_count} is in {args.out}; "
            f"{args.out / records.INDEX_NAME} follows with the last share"
        )
        return
    counts = ", ".join(f"{index.num_records(split)} {split}" for split in index.splits)
    print(f"{counts} clips with features of {index.cavp_dim} numbers in {args.out}")


def _load(args: argparse.Namespace) -> Extractor:
    mesh = mesh_lib.local_mesh(args.devices)
    if args.encoder == "cavp":
        return load(args.model, mesh)
    fps = records.read_index(args.shards).fps
    return load_image_encoder(args.model, args.encoder, fps=fps, mesh=mesh)


if __name__ == "__main__":
    main()
