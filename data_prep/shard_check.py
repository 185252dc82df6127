"""Whether every record of a set of shards can be used, and a copy of the set without the bad ones.

A record's bytes are guarded by ArrayRecord itself: each lies in a chunk of its own with a hash that
reading compares. A shard's records are found through the index at its end: a shard that was cut
short, or whose end is damaged, is lost as a whole and has to be prepared again.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import pathlib
import shutil

from array_record.python import array_record_module as array_record
import numpy as np

from foley_jax.data import records
from foley_jax.runtime import reasons

DROPPED_NAME = "dropped.jsonl"
LENGTH_TOLERANCE_S = 0.3  # audio, or image past its last frame, may end so much before end_s


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
      shard: file name.
      record: number in the shard; None if it concerns the whole file.
      reason: "unreadable", "sha256", "size", "count", "not_a_clip", "bad_clip" or "duplicate".
      detail: for people.
      id: of the clip, where it is known.
    """

    shard: str
    record: int | None
    reason: str
    detail: str
    id: str = ""


@dataclasses.dataclass
class Findings:
    """Counts of what was seen in one shard, or in all of them.

    Attributes:
      num_records: that the index promises.
      num_good: of these, without any fault.
      faults: in the order of shards and records.
      labels: (split, label) -> clips; clips without labels count under "".
      seconds: split -> length of all good clips.
      events: split -> true events.
      digests: clip id -> SHA-256 of the record's bytes.
    """

    num_records: int = 0
    num_good: int = 0
    faults: list[Fault] = dataclasses.field(default_factory=list)
    labels: Counter = dataclasses.field(default_factory=Counter)
    seconds: Counter = dataclasses.field(default_factory=Counter)
    events: Counter = dataclasses.field(default_factory=Counter)
    digests: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, other: "Findings", shard: str) -> None:
        """Takes over what was seen in one more shard; an id that is there already is a fault."""
        self.num_records += other.num_records
        self.num_good += other.num_good
        self.faults += other.faults
        for name in ("labels", "seconds", "events"):
            getattr(self, name).update(getattr(other, name))
        for name, digest in other.digests.items():
            if name in self.digests:
                detail = f"{name} is in the set twice"
                self.faults.append(Fault(shard, None, "duplicate", detail, name))
            self.digests[name] = digest

    @property
    def content_sha256(self) -> str:
        """One number for all clips, whatever their order and their shards."""
        lines = "".join(f"{name} {self.digests[name]}\n" for name in sorted(self.digests))
        return hashlib.sha256(lines.encode()).hexdigest()


def check(
    folder: pathlib.Path, *, thorough: bool = True, workers: int = 1
) -> Iterator[tuple[records.ShardInfo, Findings]]:
    """Reads every record of a set; yields what was seen shard by shard, in order.

    Args:
      thorough: also decodes every image and compares the files with the index's SHA-256.
      workers: processes; 1 works in this one.
    Raises:
      ValueError: no set there.
    """
    index = records.read_index(folder)
    job = functools.partial(check_shard, folder, index=index, thorough=thorough)
    if workers == 1 or len(index.shards) < 2:
        yield from ((shard, job(shard)) for shard in index.shards)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from zip(index.shards, pool.imap(job, index.shards))


def check_shard(
    folder: pathlib.Path, shard: records.ShardInfo, *, index: records.Index, thorough: bool
) -> Findings:
    """See `check`."""
    seen = Findings(num_records=shard.num_records)

    def fault(record: int | None, reason: str, detail: str, name: str = "") -> None:
        seen.faults.append(Fault(shard.file, record, reason, detail, name))

    size_fault = records.shard_fault(folder, shard)
    if size_fault is not None:
        fault(None, "size", size_fault)
    elif thorough and (digest := records.sha256(folder / shard.file)) != shard.sha256:
        fault(None, "sha256", f"the file has {digest}, the index says {shard.sha256}")
    for record, data in read_shard(folder, shard):
        if isinstance(data, str):
            fault(record, "unreadable" if record is not None else "count", data)
            continue
        try:
            clip = records.decode(data)
        except Exception as error:  # whatever damaged bytes may cause
            fault(record, "not_a_clip", reasons.of(error))
            continue
        wrong = clip_fault(clip, shard, index, images=thorough)
        if wrong is not None:
            fault(record, "bad_clip", wrong, clip.id)
            continue
        if clip.id in seen.digests:
            fault(record, "duplicate", f"{clip.id} is in the set twice", clip.id)
            continue
        seen.num_good += 1
        seen.labels.update((clip.split, label) for label in clip.labels or [""])
        seen.seconds[clip.split] += clip.end_s - clip.start_s
        seen.events[clip.split] += len(clip.events or [])
        seen.digests[clip.id] = hashlib.sha256(data).hexdigest()
    return seen


def read_shard(
    folder: pathlib.Path, shard: records.ShardInfo
) -> Iterator[tuple[int | None, bytes | str]]:
    """(record number, its bytes or why they cannot be read); (None, why) for the whole file."""
    path = folder / shard.file
    if not path.is_file():
        yield None, "the file is missing"
        return
    reader = array_record.ArrayRecordReader(str(path), "readahead_buffer_size:0")
    if not reader.ok() or reader.num_records() != shard.num_records:
        try:
            reader.read([0])
            why = f"holds {reader.num_records()} records, the index says {shard.num_records}"
        except RuntimeError as error:
            why = f"not one record can be found: {error}"
        yield None, why
        if not reader.ok():
            return
    for record in range(reader.num_records()):
        try:
            yield record, reader.read([record])[0]
        except RuntimeError as error:
            yield record, str(error)


def clip_fault(
    clip: records.Clip, shard: records.ShardInfo, index: records.Index, *, images: bool
) -> str | None:
    """Returns what makes a clip unfit for its set; None if nothing does."""
    if clip.split != shard.split:
        return f"is of split {clip.split!r}, its shard of {shard.split!r}"
    rates = (clip.fps, clip.sample_rate_hz)
    if rates != (index.fps, index.sample_rate_hz):
        return f"has {rates[0]:g} frames/s and {rates[1]} Hz, not those of the index"
    length_s = clip.end_s - clip.start_s
    audio_s = len(clip.audio) / clip.sample_rate_hz
    if audio_s < length_s - LENGTH_TOLERANCE_S:
        return f"has {audio_s:.2f} s of audio for {length_s:.2f} s"
    num_frames = len(clip.frames) if clip.cavp_TD is None else len(clip.cavp_TD)
    if (num_frames + 1) / clip.fps < length_s - LENGTH_TOLERANCE_S:
        return f"has {num_frames} frames or rows for {length_s:.2f} s at {clip.fps:g} a second"
    if clip.cavp_TD is not None:
        if index.cavp_dim and clip.cavp_TD.shape[1] != index.cavp_dim:
            return f"has rows of {clip.cavp_TD.shape[1]} numbers, the index says {index.cavp_dim}"
        if not np.isfinite(clip.cavp_TD).all():
            return "has features that are not finite"
    if images and clip.frames:
        try:
            shape = clip.frames_THWC().shape[1:3]
        except Exception as error:  # whatever damaged bytes may cause
            return f"has an image that cannot be decoded: {reasons.of(error)}"
        if shape != (index.height, index.width):
            return f"has images of {shape[0]}x{shape[1]}, the index says otherwise"
    return None


def repair(
    folder: pathlib.Path, out: pathlib.Path, faults: Sequence[Fault]
) -> tuple[records.Index, list[Fault]]:
    """Writes a set without the records that `check` complained of; `folder` stays as it is.

    Shards keep their names and their order of records. OUT/dropped.jsonl says what is missing and
    why, a line for each record that was lost.

    Args:
      folder: the set that was checked.
      out: a new folder.
      faults: of the whole set, from a thorough `check`.
    Returns:
      Index of the new set, and what was dropped.
    Raises:
      ValueError: `out` exists and is not empty, or nothing is left.
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} exists and is not empty; repair into a new folder")
    index = records.read_index(folder)
    out.mkdir(parents=True, exist_ok=True)
    infos, dropped = [], []
    for shard in index.shards:
        mine = [fault for fault in faults if fault.shard == shard.file]
        if not mine:
            shutil.copyfile(folder / shard.file, out / shard.file)
            infos.append(shard)
            continue
        info, lost = _rewrite(folder, out, shard, mine)
        dropped += lost
        if info.num_records:
            infos.append(info)
    if not infos:
        raise ValueError(f"not one record of {folder} can be used; prepare the videos again")
    lines = "".join(json.dumps(dataclasses.asdict(fault)) + "\n" for fault in dropped)
    (out / DROPPED_NAME).write_text(lines)
    for name in ("failures.jsonl", "notes.jsonl"):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    result = dataclasses.replace(index, shards=tuple(infos))
    records.write_index(out, result)
    return result, dropped


def _rewrite(
    folder: pathlib.Path, out: pathlib.Path, shard: records.ShardInfo, faults: list[Fault]
) -> tuple[records.ShardInfo, list[Fault]]:
    """The good records of one shard, and a fault for each of the others."""
    bad = {fault.record: fault for fault in faults if fault.record is not None}
    twice = {f.id for f in faults if f.reason == "duplicate" and f.record is None}
    whole = next((f for f in faults if f.record is None and f.reason != "sha256"), None)
    found, lost = set(), []
    number = int(pathlib.Path(shard.file).stem.rsplit("-", 1)[1])
    with records.ShardWriter(out, shard.split, number) as writer:
        for record, data in read_shard(folder, shard):
            if record is None:
                continue
            found.add(record)
            if record in bad or isinstance(data, str):
                reason = bad.get(record, Fault(shard.file, record, "unreadable", str(data)))
                lost.append(reason)
                continue
            clip = records.decode(data)
            if clip.id in twice:
                detail = f"{clip.id} is in another shard too"
                lost.append(Fault(shard.file, record, "duplicate", detail, clip.id))
                continue
            writer.add(clip)
    for record in sorted(set(range(shard.num_records)) - found):
        lost.append(Fault(shard.file, record, "unreadable", whole.detail if whole else "not there"))
    return writer.info, lost
