"""Writes shards of CAVP features: what the latent diffusion model is trained on.

    python -m data_prep.features shards features --model=runs/cavp
    python -m data_prep.features shards features --model=converted/cavp     # official weights
    python -m data_prep.features shards clip_rows --encoder=clip --model=converted/clip

Every clip gets one unit row per frame (official grouping: 40 frames see each other); the sound is
copied and the frames are dropped. Run it again after a stop: finished shards are kept.

The paper's other conditions are encoders of single pictures, converted from `clip/vit_b32` or
`torchvision/resnet50`: `--encoder=clip` (512 numbers) or `--encoder=resnet50` (2048; for training
set `--config.model.conditioner.in_dim=2048`). Their shards need pictures of the encoder's size.

Two controls for experiments, each into a folder of its own: `--permute` gives every training clip
the rows of another training clip (other splits keep their own), and a CAVP run of
`--config.total_steps=0` gives the rows of an untrained one.
"""

import argparse
from collections.abc import Iterator, Sequence
from concurrent import futures
import dataclasses
import itertools
import json
import pathlib
import sys
import zlib

from flax import nnx
import jax
import numpy as np
import tqdm

from foley_jax.data import pipeline as data_pipeline
from foley_jax.data import records
from foley_jax.diff_foley import features, image_encoders
from foley_jax.layers import network as network_lib
from foley_jax.media import specs
from foley_jax.training import checkpoint
from foley_jax.training import task as task_lib

SETTINGS_NAME = "features.json"
PERMUTED_SPLIT = "train"
READ_THREADS = 4


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A CAVP ready to run, and what its rows depend on.

    Attributes:
      encode_fn: see `features.EncodeFn`.
      video: rate and size of the frames it wants.
      identity: JSON-able; equal for equal weights.
    """

    encode_fn: features.EncodeFn
    video: specs.VideoSpec
    identity: dict[str, str | int]


def load(model: pathlib.Path) -> Extractor:
    """Loads the CAVP of a run or converted folder.

    Raises:
      FileNotFoundError: no checkpoint there.
      ValueError: the folder holds another kind of model.
    """
    config, params, rest = checkpoint.load_model_state(model)
    if config.get("task") != "cavp":
        raise ValueError(f"{model} holds {config.get('task')!r}, features need a 'cavp' run")
    if jax.default_backend() == "cpu":
        config.dtype = "float32"  # half precision is slower there
    task = task_lib.resolve(config)
    network = network_lib.Network.rebuild(
        lambda: task.build(nnx.Rngs(0)), task.trainable, params, rest
    )
    identity = _identity(model, network, str(config.dtype))
    return Extractor(network.jit(features.encode_frames), specs.VideoSpec(**config.video), identity)


def load_image_encoder(model: pathlib.Path, encoder: str, *, fps: float) -> Extractor:
    """Loads a converted picture encoder ("clip" or "resnet50") for shards of `fps` frames/s.

    Raises:
      FileNotFoundError: no converted weights there.
      ValueError: the folder holds another kind of model.
    """
    config, params, rest = checkpoint.load_model_state(model)
    fields = config.model if "model" in config else {}
    if fields.get("encoder") != encoder:
        kind = {"clip": "clip/vit_b32", "resnet50": "torchvision/resnet50"}[encoder]
        raise ValueError(
            f"{model} holds no {encoder} weights; make them with "
            f"`python -m foley_jax.convert {kind} FILE FOLDER`"
        )
    network = network_lib.Network.rebuild(
        lambda: image_encoders.from_config(fields, rngs=nnx.Rngs(0)), nnx.Param, params, rest
    )
    video = specs.VideoSpec(fps, fields.image_size, fields.image_size)
    encode_fn = network.jit(image_encoders.encode_frames)
    return Extractor(encode_fn, video, _identity(model, network, "float32"))


def _identity(
    model: pathlib.Path, network: network_lib.Network, dtype: str
) -> dict[str, str | int]:
    digest = 0
    for leaf in jax.tree.leaves(network.state):
        digest = zlib.crc32(np.ascontiguousarray(leaf), digest)
    return {"model": str(model), "weights_crc32": digest, "dtype": dtype}


def extract_set(
    shards: pathlib.Path,
    out: pathlib.Path,
    extractor: Extractor,
    *,
    permute: bool = False,
    seed: int = 0,
    batch: int = 16,
) -> records.Index:
    """Writes the feature shards of a whole set; returns its index.

    Args:
      shards: a prepared set with frames.
      out: folder to write; unfinished work of the same settings is continued.
      permute: control, see the module.
      seed: of the permutation.
      batch: clips encoded together.
    Raises:
      ValueError: the set does not fit the model, or `out` was begun with other settings.
    """
    index = records.read_index(shards)
    _check_video(shards, index, extractor.video)
    if permute and PERMUTED_SPLIT not in index.splits:
        raise ValueError(f"{shards} has no split {PERMUTED_SPLIT!r} to permute: {index.splits}")
    _claim(out, shards, index, extractor, permute, seed)
    finished = []
    with tqdm.tqdm(total=sum(s.num_records for s in index.shards), unit="clip") as bar:
        for split in index.splits:
            source = data_pipeline.open_source(shards, split)
            donors = np.arange(len(source))
            if permute and split == PERMUTED_SPLIT:
                donors = derangement(len(source), seed)
            first = 0
            for shard in (s for s in index.shards if s.split == split and s.num_records):
                positions = range(first, first + shard.num_records)
                first += shard.num_records
                path = out / shard.file
                if not path.exists():
                    _write_shard(path, split, source, positions, donors, extractor, batch)
                size, digest = path.stat().st_size, records.sha256(path)
                finished.append(dataclasses.replace(shard, bytes=size, sha256=digest))
                bar.update(shard.num_records)
    for left_over in out.glob(".*.part"):  # of killed runs
        left_over.unlink(missing_ok=True)
    width = data_pipeline.Source([out / finished[0].file], [1])[0].cavp_TD.shape[1]
    result = dataclasses.replace(index, shards=tuple(finished), cavp_dim=int(width))
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
    permute: bool,
    seed: int,
) -> None:
    """Notes the settings in `out`, or checks that they are the ones noted there."""
    if out.resolve() == shards.resolve():
        raise ValueError(f"the features need a folder of their own, not {shards}")
    settings = {
        "source": [shard.sha256 for shard in index.shards],
        "permute_seed": seed if permute else None,
        **extractor.identity,
    }
    path = out / SETTINGS_NAME
    if path.exists():
        before = json.loads(path.read_text())
        # the same weights may lie at another path
        changed = [k for k in settings if k != "model" and settings[k] != before.get(k)]
        if changed:
            raise ValueError(
                f"{out} was begun with other settings ({', '.join(changed)} differ); "
                "delete it or write to another folder"
            )
        return
    if out.exists() and any(out.glob("*.arrayrecord")):
        raise ValueError(f"{out} holds shards that are not features of this set; choose another")
    out.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(settings, indent=1) + "\n")
    part.rename(path)


def derangement(count: int, seed: int) -> np.ndarray:
    """Who gives rows to clip i: a random cycle through all clips, so never the clip itself.

    Raises:
      ValueError: fewer than two clips.
    """
    if count < 2:
        raise ValueError(f"{count} training clips cannot swap rows; --permute needs two")
    order = np.random.default_rng(seed).permutation(count)
    donors = np.empty(count, np.int64)
    donors[order] = np.roll(order, 1)
    return donors


def _write_shard(
    path: pathlib.Path,
    split: str,
    source: data_pipeline.Source,
    positions: range,
    donors: np.ndarray,
    extractor: Extractor,
    batch: int,
) -> None:
    number = int(path.stem.rsplit("-", 1)[1])
    rows = _rows(source, donors[positions.start : positions.stop], extractor.encode_fn, batch)
    with records.ShardWriter(path.parent, split, number) as writer:
        for position, rows_TD in zip(positions, rows):
            clip = source[position]
            if len(rows_TD) != len(clip.frames):
                # rows of a longer or shorter clip: cut, or repeated from the start
                rows_TD = rows_TD[np.arange(len(clip.frames)) % len(rows_TD)]
            writer.add(dataclasses.replace(clip, frames=[], cavp_TD=rows_TD.astype(np.float16)))


def _rows(
    source: data_pipeline.Source,
    positions: Sequence[int],
    encode_fn: features.EncodeFn,
    batch: int,
) -> Iterator[np.ndarray]:
    """Rows [T, D] of clips in order; clips of one length that follow each other go together."""
    with futures.ThreadPoolExecutor(READ_THREADS) as pool:
        decoded = _ahead(pool, source, positions, batch)
        for _, run in itertools.groupby(decoded, key=lambda frames: frames.shape):
            for group in _batched(run, batch):
                # a short batch is filled up, so that one program serves all
                full = np.stack([*group, *[group[-1]] * (batch - len(group))])
                yield from features.extract_batch(encode_fn, full)[: len(group)]


def _ahead(
    pool: futures.Executor, source: data_pipeline.Source, positions: Sequence[int], batch: int
) -> Iterator[np.ndarray]:
    """Decoded frames in order, up to two batches decoded in advance."""

    def decode(position: int) -> np.ndarray:
        return source[int(position)].frames_THWC()

    waiting: list[futures.Future] = []
    for position in positions:
        waiting.append(pool.submit(decode, position))
        if len(waiting) >= 2 * batch:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def _batched(items: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while group := list(itertools.islice(items, size)):
        yield group


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shards", type=pathlib.Path, help="prepared set with frames")
    parser.add_argument("out", type=pathlib.Path, help="folder to write")
    parser.add_argument(
        "--model", type=pathlib.Path, required=True, help="CAVP run or converted folder"
    )
    parser.add_argument(
        "--encoder", choices=("cavp", "clip", "resnet50"), default="cavp", help="what it is (cavp)"
    )
    parser.add_argument("--permute", action="store_true", help="control: rows of another clip")
    parser.add_argument("--seed", type=int, default=0, help="of --permute (0)")
    parser.add_argument("--batch", type=int, default=16, help="clips encoded together (16)")
    args = parser.parse_args(argv)
    if args.batch < 1:
        parser.error("--batch must be positive")
    try:
        if args.encoder == "cavp":
            extractor = load(args.model)
        else:
            fps = records.read_index(args.shards).fps
            extractor = load_image_encoder(args.model, args.encoder, fps=fps)
        index = extract_set(
            args.shards,
            args.out,
            extractor,
            permute=args.permute,
            seed=args.seed,
            batch=args.batch,
        )
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    counts = ", ".join(f"{index.num_records(split)} {split}" for split in index.splits)
    print(f"{counts} clips with rows of {index.cavp_dim} numbers in {args.out}")


if __name__ == "__main__":
    main()
