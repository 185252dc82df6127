"""How fast batches come out of a set of shards, and what the time goes into.

Prepared sets are read as contrastive training reads them (`clips.CavpClips`), feature sets as
latent diffusion does (`clips.LdmWindows`).
"""

import argparse
from collections.abc import Callable, Iterator
import itertools
import os
import pathlib
import resource
import time
from typing import Any

from absl import flags
import numpy as np

from foley_jax.data import clips, pipeline, records
from foley_jax.media import specs

STAGES = ("read", "unpack", "images", "audio", "arrange", "stack")
MEANING = {
    "read": "bytes of a record out of its shard, with the comparison of its hash",
    "unpack": "msgpack to a clip",
    "images": "JPEG to RGB, only the frames that are used",
    "audio": "brought to its length",
    "arrange": "drawing of stretches, copies into clips or windows",
    "stack": "examples to a batch",
}
WARM_BATCHES = 3  # files get opened and threads started


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that `measure` reads."""
    group = parser.add_argument_group("--speed")
    group.add_argument("--speed", action="store_true", help="measure the loader")
    group.add_argument("--batches", type=int, default=50, help="batches to read (50)")
    group.add_argument("--batch_size", type=int, default=8, help="examples of a batch (8)")
    group.add_argument("--read_threads", type=int, default=4, help="as config.data has it (4)")
    group.add_argument("--loader_workers", type=int, default=0, help="config.data.workers (0)")


def transform_of(index: records.Index) -> clips.CavpClips | clips.LdmWindows:
    """Returns what training makes of such records: 3 clips of 16 frames, or a window of 8.2 s."""
    video = specs.VideoSpec(index.fps, index.height, index.width, index.fit, index.antialias)
    if index.cavp_dim:
        audio = specs.AudioSpec(sample_rate_hz=index.sample_rate_hz, hop=256)
        return clips.LdmWindows(video, audio)
    return clips.CavpClips(video, specs.AudioSpec(sample_rate_hz=index.sample_rate_hz, hop=250))


def measure(folder: pathlib.Path, options: argparse.Namespace) -> Iterator[str]:
    """Lines of figures: the stages on one thread, then whole batches as training takes them.

    Args:
      options: see `add_options`.
    Raises:
      ValueError: no set there, or it has too few clips for one batch.
    """
    index = records.read_index(folder)
    split = max(index.splits, key=index.num_records)
    transform = transform_of(index)
    shards = [shard for shard in index.shards if shard.split == split]
    record_mb = sum(shard.bytes for shard in shards) / index.num_records(split) / 1e6
    what = "CAVP clips" if isinstance(transform, clips.CavpClips) else "LDM windows"
    yield (
        f"  {what} of split {split!r}, {record_mb:.2f} MB a record; milliseconds of one core "
        "per example:"
    )
    seconds = stage_seconds(folder, split, transform, options.batch_size)
    whole = sum(seconds.values())
    for stage, value in seconds.items():
        yield f"    {stage:9}{value * 1e3:8.3f}  {value / whole:4.0%}  {MEANING[stage]}"
    yield (
        f"    in all   {whole * 1e3:8.3f}  {1 / whole:.1f} examples/s per core; the most: "
        f"{max(seconds, key=seconds.get)}"
    )
    yield from _whole_batches(folder, split, transform, options)


def stage_seconds(
    folder: pathlib.Path, split: str, transform: Callable, count: int
) -> dict[str, float]:
    """Core seconds per example of each of `STAGES`, one after the other; the least of 5 rounds."""
    source = pipeline.open_source(folder, split)
    best = dict.fromkeys(STAGES, float("inf"))
    order = np.random.default_rng(0).permutation(len(source))[:count]
    for _ in range(5):
        now = _one_round(source, [int(i) for i in order], transform)
        best = {stage: min(best[stage], now[stage]) for stage in STAGES}
    return best


class _TimedClip(records.Clip):
    """A clip that adds the time of its decoding to `clock`."""

    clock: list[float]

    def frames_at(self, index: np.ndarray) -> np.ndarray:
        seconds, frames = _timed(lambda: super(_TimedClip, self).frames_at(index))
        self.clock.append(seconds)
        return frames


class _Counting(list):
    """Records in memory, and how many were taken: a joined window takes two."""

    taken = 0

    def __getitem__(self, index: int) -> records.Clip:
        self.taken += 1
        return super().__getitem__(index)


def _one_round(source: pipeline.Source, order: list[int], transform: Callable) -> dict[str, float]:
    count, clock = len(order), []
    read_s, data = _timed(lambda: [source.read_bytes(i) for i in order])
    unpack_s, decoded = _timed(lambda: [records.decode(one) for one in data])
    timed = _Counting(_TimedClip(**vars(clip)) for clip in decoded)
    for clip in timed:
        clip.clock = clock
    rngs = [np.random.default_rng(i) for i in range(count)]
    whole_s, examples = _timed(lambda: [transform(timed, i, rngs[i]) for i in range(count)])
    video, audio = transform.video, transform.audio
    size = {
        "num_frames": video.num_frames(transform.clip_seconds),
        "num_samples": audio.num_samples(transform.clip_seconds) - 1,
    }
    audio_s, _ = _timed(lambda: [clips.Timeline.of(c, fps=video.fps, **size) for c in decoded])
    stack_s, _ = _timed(lambda: {k: np.stack([one[k] for one in examples]) for k in examples[0]})
    images_s, each = sum(clock), timed.taken / count  # records of an example
    read_s, unpack_s, audio_s = read_s * each, unpack_s * each, audio_s * each
    arrange_s = max(0.0, whole_s - images_s - audio_s)
    values = (read_s, unpack_s, images_s, audio_s, arrange_s, stack_s)
    return {stage: value / count for stage, value in zip(STAGES, values)}


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()  # others may be using the cores too
    result = function()
    return time.process_time() - began, result


def _whole_batches(
    folder: pathlib.Path, split: str, transform: Callable, options: argparse.Namespace
) -> Iterator[str]:
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # worker processes look at absl's flags
    source = pipeline.open_source(folder, split)
    batches = pipeline.make_iterator(
        source,
        transform,
        global_batch=options.batch_size,
        seed=0,
        position=0,
        process_index=0,
        process_count=1,
        read_threads=options.read_threads,
        workers=options.loader_workers,
    )
    for batch in itertools.islice(batches, WARM_BATCHES):
        batch_mb = sum(value.nbytes for value in batch.values()) / 1e6
    marks = {round(options.batches * share) for share in (0.05, 0.25, 0.5, 1)}
    memory = []
    began, cpu_began = time.perf_counter(), time.process_time()
    for number, _ in enumerate(itertools.islice(batches, options.batches), 1):
        if number in marks:
            memory.append(f"{resident_mb():.0f} MB after {number}")
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    examples = options.batches * options.batch_size
    how = f"{options.read_threads} threads, {options.loader_workers} workers"
    rate = f"{examples / elapsed:.1f} examples/s"
    if not options.loader_workers:  # the work of other processes is not counted
        cores = cpu / elapsed
        rate += f" on {cores:.2f} of {os.cpu_count()} cores ({examples / cpu:.1f} per core)"
    yield (
        f"  batches of {options.batch_size} ({batch_mb:.1f} MB) with {how}: {rate}, "
        f"{options.batches * batch_mb / elapsed:.1f} MB/s of arrays"
    )
    yield f"  resident memory: {', '.join(memory)} batches"


def resident_mb() -> float:
    """Memory that this process holds, in MB; without /proc the most that it ever held."""
    status = pathlib.Path("/proc/self/statm")
    if status.is_file():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
