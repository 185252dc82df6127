"""Small sets of shards for tests: made, read back, compared."""

import json
import pathlib

from array_record.python import array_record_module

from data_prep import clip_making
from foley_jax.data import records
from tests.media import media_files

FORMAT = clip_making.Format(fps=4.0, size=16, sample_rate_hz=16000, clip_seconds=2.0)
FLAGS = ("--size=16", "--clip_seconds=2", "--clips_per_shard=2")


def write_videos(folder: pathlib.Path, count: int = 6) -> pathlib.Path:
    """Short videos, some of two clips, and one that is none."""
    (folder / "train").mkdir(parents=True)
    (folder / "test").mkdir()
    for i in range(count):
        split = "test" if i % 3 == 2 else "train"
        media_files.write(
            folder / split / f"v{i}.mp4", seconds=2 + 2 * (i % 2), times_s=(0.1 + 0.2 * i,)
        )
    (folder / "train/broken.mp4").write_bytes(b"no video")
    return folder


def run_in_process(jobs, run, **unused) -> None:
    """A `prepare.Runner` for places that only this process sees."""
    for job in jobs:
        run(job, {}, lambda task: None)


def digests(shards: pathlib.Path) -> dict[str, str]:
    """Shard -> SHA-256, as the index has it."""
    return {shard.file: shard.sha256 for shard in records.read_index(shards).shards}


def read_records(shards: pathlib.Path, split: str) -> list[bytes]:
    """All records of a split, shard after shard."""
    out = []
    for path in records.shard_paths(shards, split):
        out += array_record_module.ArrayRecordReader(str(path)).read_all()
    return out


def read_ids(shards: pathlib.Path, split: str) -> list[str]:
    """Ids of all clips of a split, in their order."""
    return [records.decode(data).id for data in read_records(shards, split)]


def read_failures(shards: pathlib.Path) -> list[dict]:
    """Lines of failures.jsonl."""
    return [json.loads(line) for line in (shards / "failures.jsonl").read_text().splitlines()]
