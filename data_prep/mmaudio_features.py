"""Writes shards of MMAudio's features: what its flow network is trained on.

    python -m data_prep.sources.vggsound vggsound.csv VIDEOS --out=vggsound.jsonl
    python -m data_prep.mmaudio_features VIDEOS features_mm --model=official_mmaudio \\
        --manifest=vggsound.jsonl
    python -m data_prep.mmaudio_features VIDEOS features_mm --model=official_mmaudio \\
        --manifest=vggsound.jsonl --process_index=3 --process_count=8    # an eighth of the shards

Every line of the manifest gives clips of 8 s: mean and deviation of its latents, CLIP's features of
frames and of its labels as a text, Synchformer's features. Files without video (FLAC of AudioCaps)
and lines without labels are clips, too; training puts empty features in the place of what is
missing. Without --manifest every media file of the folder is taken, without text.

`--model` is a folder with the released files of autoencoder, CLIP, Synchformer and CLIP's merges.
Instead of it, `--autoencoder` and `--cavp` name runs of ours, as the demo has them: CAVP's features
take the place of CLIP's and Synchformer's, hashed words that of CLIP's text.
Run it again after a stop: finished shards are kept. Files that cannot be read are lines of
failures.jsonl. Whoever finishes last writes the index, and `constants`: the statistics of the
latents and the features of "", where a training begins.
"""

import argparse
from collections.abc import Iterator, Sequence
from concurrent import futures
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import secrets
import shutil
import sys
from typing import Any

import numpy as np
import tqdm

from data_prep import divided_shards, manifest, mmaudio_clips, spans, storage
from foley_jax.data import records
from foley_jax.media import file_arguments, video
from foley_jax.media import files as media_files
from foley_jax.mmaudio import extraction, files, own_runs, tokens
from foley_jax.mmaudio import rates as rates_lib
from foley_jax.mmaudio.models import small_encoders
from foley_jax.runtime import compile_cache, reasons
from foley_jax.training.checkpointing import run_directory

CONSTANTS, FAILURES = "constants", "failures.jsonl"
READ_THREADS = 4


@dataclasses.dataclass(frozen=True)
class Shard:
    """The lines of the manifest that one file is made of."""

    split: str
    number: int
    entries: tuple[manifest.Entry, ...]

    @property
    def note(self) -> str:
        """Name of what says that it is finished."""
        return f".done-{self.split}-{self.number:05d}.json"


def plan(entries: Sequence[manifest.Entry], size: int) -> list[Shard]:
    """Returns the shards of a manifest, `size` lines each, in its order."""
    splits: dict[str, list[manifest.Entry]] = {}
    for entry in entries:
        splits.setdefault(entry.split, []).append(entry)
    return [
        Shard(split, i // size, tuple(own[i : i + size]))
        for split, own in sorted(splits.items())
        for i in range(0, len(own), size)
    ]


def extract_set(
    videos: pathlib.Path,
    out: pathlib.Path,
    entries: Sequence[manifest.Entry],
    extractor: extraction.Extractor,
    *,
    shard_size: int = 64,
    process_index: int = 0,
    process_count: int = 1,
) -> records.Index | None:
    """Writes the shards of a set, or this process's share of them.

    Returns:
      The set's index, if all shards are there; None if other processes are still at work.
    Raises:
      ValueError: `out` was begun with other settings, no clip could be made, or the manifest is
        empty.
    """
    divided_shards.check_share(process_index, process_count)
    if not entries:
        raise ValueError(f"{videos} holds no media files, or the manifest no lines")
    lines = json.dumps([dataclasses.astuple(entry) for entry in entries])
    divided_shards.claim(
        out,
        {
            "manifest": hashlib.sha256(lines.encode()).hexdigest(),
            "rates": extractor.rates.name,
            "window_s": extractor.window_s,
            "shard_size": shard_size,
            "weights_crc32": extractor.weights,
        },
    )
    shards = plan(entries, shard_size)
    mine = shards[process_index::process_count]
    with tqdm.tqdm(total=sum(len(shard.entries) for shard in mine), unit="file") as bar:
        for shard in mine:
            if _finished(out, shard) is None:
                _write_shard(videos, out, shard, extractor)
            bar.update(len(shard.entries))
    notes = [_finished(out, shard) for shard in shards]
    return None if None in notes else _finish(out, notes, extractor)


def _finished(out: pathlib.Path, shard: Shard) -> dict[str, Any] | None:
    """What `_write_shard` noted; None if the shard is not (wholly) there."""
    path = out / shard.note
    if not path.is_file():
        return None
    note = json.loads(path.read_text())
    info = records.ShardInfo(**note["shard"])
    return note if not info.num_records or not records.shard_fault(out, info) else None


def _write_shard(
    videos: pathlib.Path, out: pathlib.Path, shard: Shard, extractor: extraction.Extractor
) -> None:
    failures: list[dict] = []
    # of the means, with and without video: number, sum and sum of squares
    moments = {kind: np.zeros((3, extractor.rates.channels)) for kind in ("video", "audio")}
    with records.ShardWriter(out, shard.split, shard.number) as writer:
        for some in _read_ahead(videos, shard, extractor, failures):
            found = extractor([seen for _, seen in some])
            for (piece, _), features in zip(some, found):
                writer.add(_record(piece, features, extractor))
                mean_NC = features["mean_NC"].astype(np.float64)
                ones = np.ones_like(mean_NC)
                moments["video" if piece.has_video else "audio"] += [
                    x.sum(axis=0) for x in (ones, mean_NC, mean_NC**2)
                ]
    note = {
        "shard": dataclasses.asdict(writer.info),
        "failures": failures,
        "moments": {kind: values.tolist() for kind, values in moments.items()},
    }
    storage.Storage(out).write(shard.note, json.dumps(note).encode())


def _read_ahead(
    videos: pathlib.Path, shard: Shard, extractor: extraction.Extractor, failures: list[dict]
) -> Iterator[list[tuple[mmaudio_clips.Piece, extraction.Seen]]]:
    """Clips in groups of `extractor.batch`, in order; the next group is read meanwhile."""
    window_s = extractor.window_s

    def tried(entry: manifest.Entry, clip_id: str, done: futures.Future) -> list:
        """The result in a list; an empty one, and a failure, where there is none."""
        try:
            return [done.result()]
        except Exception as error:  # one bad file never stops the rest
            reason = error.reason if isinstance(error, video.MediaError) else "error"
            line = {"source": entry.file, "id": clip_id, "reason": reason}
            failures.append({**line, "detail": reasons.of(error)})
            return []

    def pieces() -> Iterator[mmaudio_clips.Piece]:
        cuts = [pool.submit(mmaudio_clips.cut, videos, e, window_s) for e in shard.entries]
        for entry, done in zip(shard.entries, cuts):
            yield from itertools.chain(*tried(entry, entry.id, done))

    def start(some: list[mmaudio_clips.Piece]) -> list:
        how = (extractor.rates, window_s, extractor.videos)
        return [(one, pool.submit(mmaudio_clips.read, videos, one, *how)) for one in some]

    def result(group: list) -> list:
        return [(one, x) for one, done in group for x in tried(one.entry, one.id, done)]

    with futures.ThreadPoolExecutor(READ_THREADS) as pool:
        left, waiting = pieces(), []
        while some := list(itertools.islice(left, extractor.batch)):
            begun = start(some)
            if ready := result(waiting):
                yield ready
            waiting = begun
        if ready := result(waiting):
            yield ready


def _record(
    piece: mmaudio_clips.Piece, features: dict[str, np.ndarray], extractor: extraction.Extractor
) -> records.Clip:
    return records.Clip(
        id=piece.id,
        split=piece.entry.split,
        labels=piece.entry.label_names,
        source=piece.entry.file,
        start_s=piece.start_s,
        end_s=piece.start_s + extractor.window_s,
        fps=rates_lib.CLIP_FPS,
        frames=[],
        audio=np.zeros(0, np.int16),
        sample_rate_hz=extractor.rates.audio.sample_rate_hz,
        features=features,
    )


def _finish(
    out: pathlib.Path, notes: Sequence[dict[str, Any]], extractor: extraction.Extractor
) -> records.Index:
    """Writes constants, failures and the index, in this order."""
    infos = tuple(records.ShardInfo(**note["shard"]) for note in notes)
    failures = [failure for note in notes for failure in note["failures"]]
    lines = "".join(json.dumps(failure) + "\n" for failure in failures)
    storage.Storage(out).write(FAILURES, lines.encode())
    kept = [(info, note["moments"]) for info, note in zip(infos, notes) if info.num_records]
    if not kept:
        raise ValueError(f"not one clip could be made; {out / FAILURES} says why")
    own = [moments for info, moments in kept if info.split == "train"]
    latent_mean, latent_std = statistics(own or [moments for _, moments in kept])
    if not (out / CONSTANTS).exists():
        _write_constants(out, latent_mean, latent_std, extractor.of_texts([""])[0])
    video_spec = extractor.videos[0]
    index = records.Index(
        video_spec.fps,
        video_spec.height,
        video_spec.width,
        extractor.rates.audio.sample_rate_hz,
        tuple(info for info, _ in kept),
        num_failures=len(failures),
        fit=video_spec.fit,
    )
    records.write_index(out, index)
    return index


def statistics(moments: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased deviation [1, 1, C] over clips and positions of the means of latents.

    Of the clips with video, as the official ones are; of all where none has any.
    """
    total = sum(np.asarray(one["video"]) for one in moments)
    if not total[0].any():
        total = sum(np.asarray(one["audio"]) for one in moments)
    count, first, second = total
    mean = first / count
    variance = (second - count * mean**2) / (count - 1)
    both = (mean, np.sqrt(variance))
    return tuple(x.astype(np.float32).reshape(1, 1, -1) for x in both)


def _write_constants(
    out: pathlib.Path, latent_mean: np.ndarray, latent_std: np.ndarray, empty_TD: np.ndarray
) -> None:
    rest = {
        "latent_mean": latent_mean,
        "latent_std": latent_std,
        "empty_string_feat": empty_TD.astype(np.float32),
    }
    part = out / f".{CONSTANTS}.{secrets.token_hex(6)}.part"
    run_directory.save_model(part, config={"task": "mmaudio"}, params={}, rest=rest)
    try:
        os.rename(part, out / CONSTANTS)
    except OSError:  # another process has just written the same
        shutil.rmtree(part)


def listed(videos: pathlib.Path, path: pathlib.Path | None) -> list[manifest.Entry]:
    """Returns the lines of a manifest, or one for every media file of the folder."""
    if path is not None:
        return manifest.read(path)
    suffixes = (*media_files.VIDEO_SUFFIXES, *media_files.AUDIO_SUFFIXES)
    sources = storage.Storage(videos).find(suffixes).paths
    return [
        manifest.Entry(name, source, spans.split_of(source, "auto"))
        for source, name in zip(sources, spans.names_of(sources))
    ]


def load(
    model: pathlib.Path, rate: str, *, dtype: str = "float32", batch: int = 4
) -> extraction.Extractor:
    """Loads the encoders of a folder of released files.

    Raises:
      FileNotFoundError: one of them is not there.
    """
    folders = files.folders_of(model)
    kinds = {"autoencoder": f"mmaudio/vae_{rate}", "clip": files.CLIP, "sync": files.SYNC}
    paths = {name: files.find(kind, folders) for name, kind in kinds.items()}
    paths["merges"] = tokens.find_merges(folders)
    missing = [f"{name} ({kinds.get(name, 'of CLIP')})" for name, path in paths.items() if not path]
    if missing:
        raise FileNotFoundError(
            f"{model} has no file of {', '.join(missing)}; foley_jax/mmaudio/sampling/README.md "
            "names them"
        )
    made = {
        name: files.network(kind, paths[name], "float32" if name == "autoencoder" else dtype)
        for name, kind in kinds.items()
    }
    tokenizer = tokens.Tokenizer(paths["merges"])
    return extraction.Extractor(rates_lib.RATES[rate], tokenizer=tokenizer, batch=batch, **made)


def load_small(
    autoencoder: pathlib.Path,
    cavp: pathlib.Path,
    *,
    dtype: str = "float32",
    batch: int = 4,
    window_s: float = rates_lib.WINDOW_S,
) -> extraction.Extractor:
    """Loads a run's autoencoder, and a run's CAVP in place of CLIP and Synchformer.

    Raises:
      FileNotFoundError, ValueError: one of them is no such run.
    """
    rates, network = own_runs.autoencoder(autoencoder)
    encoders = own_runs.encoders(cavp, dtype)
    return extraction.Extractor(
        rates,
        autoencoder=network,
        clip=encoders.network,
        sync=encoders.network,
        tokenizer=small_encoders.Words(),
        window_s=window_s,
        batch=batch,
        videos=(encoders.clip_video, encoders.sync_video),
    )


def _parser() -> argparse.ArgumentParser:
    parser = file_arguments.Parser(
        prog="python -m data_prep.mmaudio_features",
        description=__doc__,
        epilog=compile_cache.HELP,
    )
    add = parser.add_argument
    add("videos", type=pathlib.Path, help="folder of media files")
    add("out", type=pathlib.Path, help="folder to write")
    add("--model", type=pathlib.Path, help="folder of MMAudio's released files")
    add("--autoencoder", type=pathlib.Path, help="instead of --model, with --cavp: a run's")
    add("--cavp", type=pathlib.Path, help="run of a CAVP in place of CLIP and Synchformer")
    add("--manifest", type=pathlib.Path, help="from data_prep.sources; else every media file")
    add("--rate", choices=tuple(rates_lib.RATES), default="16k", help="of the audio (16k)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the encoders")
    add("--batch", type=int, default=4, help="clips encoded together (4)")
    add("--shard_size", type=int, default=64, help="lines of the manifest to a shard (64)")
    add("--process_index", type=int, default=0, help="which share of the shards to make (0)")
    add("--process_count", type=int, default=1, help="how many shares there are (1)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = _parser()
    args = parser.parse_args(argv)
    if min(args.batch, args.shard_size) < 1:
        parser.error("--batch and --shard_size must be positive")
    if (args.model is None) != bool(args.autoencoder and args.cavp):
        parser.error("give either --model, or --autoencoder and --cavp")
    try:
        compile_cache.turn_on()
        index = extract_set(
            args.videos,
            args.out,
            listed(args.videos, args.manifest),
            load(args.model, args.rate, dtype=args.dtype, batch=args.batch)
            if args.model
            else load_small(args.autoencoder, args.cavp, dtype=args.dtype, batch=args.batch),
            shard_size=args.shard_size,
            process_index=args.process_index,
            process_count=args.process_count,
        )
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"error: {reasons.of(error)}")
    if index is None:
        print(f"share {args.process_index} of {args.process_count} is in {args.out}")
        return
    counts = ", ".join(f"{index.num_records(split)} {split}" for split in index.splits)
    print(f"{counts} clips in {args.out}, {index.num_failures} failures (see {FAILURES})")


if __name__ == "__main__":
    main()
