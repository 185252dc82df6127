"""The plan of a preparation, fixed by its first run and followed by all later ones.

SHARDS/.listing.jsonl      stretches of files that must be looked at, one a line
SHARDS/.listing.json       the settings, and where each chunk of the listing lies
SHARDS/.probed-00000.json  what a chunk gave; removed when all is planned
SHARDS/.plan.jsonl         the clips to make, shard by shard, one a line
SHARDS/.plan.json          the settings, and where each shard's clips lie in that file

A worker is told a range of bytes and reads just these lines, so that a million clips need neither
be sent around nor be held by anyone but the planner.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import functools
import hashlib
import itertools
import json
import os

from etils import epath

from data_prep import manifest, spans, storage

VERSION = 2
PLAN_NAME = ".plan.json"
CLIPS_NAME = ".plan.jsonl"
LISTING_NAME = ".listing.json"
STRETCHES_NAME = ".listing.jsonl"
PROBE_CHUNK = 64  # stretches per planning job
# of sets begun before there was a choice
OLD_SETTINGS = {
    "fit": "stretch",
    "antialias": True,
    "seed": 0,
    "num_shards": None,
    "manifest": None,
}
SLACK_S = 1e-6  # of times that were rounded on their way through a manifest


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """A part of a file that is to be cut into clips, or is one.

    Attributes:
      source: path relative to the videos' folder, with forward slashes.
      split: where its clips go.
      name: of the clip, or what its clips are called before `#`.
      start_s, end_s: its place in the file; `end_s` None is the end of the file.
      labels: names of what is heard, None if not known.
    """

    source: str
    split: str
    name: str
    start_s: float = 0.0
    end_s: float | None = None
    labels: tuple[str, ...] | None = None

    def is_one_clip(self, clip_s: float) -> bool:
        """Whether its times alone tell that it is one clip: nobody needs to look at the file."""
        return self.end_s is not None and self.end_s - self.start_s <= clip_s + SLACK_S


@dataclasses.dataclass(frozen=True)
class Lines:
    """A range of a file of lines: it begins at byte `at`."""

    at: int
    length: int
    count: int


@dataclasses.dataclass(frozen=True)
class ProbeJob:
    """One chunk of the listing."""

    number: int
    lines: Lines

    @property
    def done_name(self) -> str:
        """File that holds what was found."""
        return f".probed-{self.number:05d}.json"


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """One shard: its place in the set, and where the spans that go into it are written."""

    split: str
    number: int
    lines: Lines

    @property
    def done_name(self) -> str:
        """File that says the shard is finished, and how."""
        return f".done-{self.split}-{self.number:05d}.json"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything to do, and the failures that were seen while planning."""

    jobs: list[ShardJob]
    failures: list[dict]


def failure(source: str, reason: str, detail: str, *, clip_id: str | None = None) -> dict[str, str]:
    """One line of failures.jsonl."""
    named = {} if clip_id is None else {"id": clip_id}
    return {"file": source, **named, "reason": reason, "detail": detail}


def list_folder(
    videos: storage.Storage, split: str, *, leave_out: storage.Storage | None = None
) -> list[Segment]:
    """The whole of every video file of a folder.

    Args:
      videos: the folder.
      split: "auto" (see `spans.split_of`), or one name for everything.
      leave_out: a folder in it that is not searched.
    Raises:
      ValueError: no such folder, or no video in it.
    """
    sources = spans.find_videos(videos, leave_out=leave_out)
    named = zip(sources, spans.names_of(sources), strict=True)
    return [Segment(source, spans.split_of(source, split), name) for source, name in named]


def read_manifest(path: epath.PathLike, split: str) -> tuple[list[Segment], str]:
    """The stretches of a manifest, and a digest of the file.

    Args:
      split: "auto" (what the manifest says), or one name for everything.
    Raises:
      ValueError: no such manifest, nothing in it, or a line of it is wrong.
    """
    try:
        entries = manifest.read(path)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    if not entries:
        raise ValueError(f"{path} is empty, wanted one clip a line")
    found = [
        Segment(
            one.file,
            one.split if split == "auto" else split,
            one.id,
            one.start_s,
            one.end_s,
            tuple(one.label_names) or None,  # the truth beside the file may know more
        )
        for one in entries
    ]
    return found, hashlib.sha256(epath.Path(path).read_bytes()).hexdigest()


def write_listing(
    shards: storage.Storage, segments: Sequence[Segment], settings: dict
) -> list[ProbeJob]:
    """Writes what must be looked at, fixing it for all later runs."""
    lines = [_fields(one) for one in segments]
    data, starts = _packed(lines)
    shards.write(STRETCHES_NAME, data)
    jobs = []
    for number, first in enumerate(range(0, len(lines), PROBE_CHUNK)):
        last = min(first + PROBE_CHUNK, len(lines))
        where = Lines(starts[first], starts[last] - starts[first], last - first)
        jobs.append(ProbeJob(number, where))
    chunks = [dataclasses.astuple(job.lines) for job in jobs]
    _write_json(shards, LISTING_NAME, {"settings": settings, "chunks": chunks})
    return jobs


def read_listing(shards: storage.Storage, settings: dict) -> list[ProbeJob] | None:
    """The listing of an earlier run, if there is one.

    Raises:
      ValueError: it was made with other settings.
    """
    listing = _read_json(shards, LISTING_NAME)
    if listing is None:
        return None
    check_settings(shards, listing["settings"], settings)
    return [ProbeJob(number, Lines(*chunk)) for number, chunk in enumerate(listing["chunks"])]


def read_stretches(shards: storage.Storage, job: ProbeJob) -> list[Segment]:
    """The stretches of a chunk."""
    rows = _unpacked(shards, STRETCHES_NAME, job.lines)
    return [Segment(*fields, _names(labels)) for *fields, labels in rows]


def listed_files(shards: storage.Storage) -> set[str]:
    """Files of the folder when the listing was made."""
    return {json.loads(line)[0] for line in shards.read(STRETCHES_NAME).splitlines()}


def spans_of_clips(segments: Iterable[Segment]) -> tuple[list[spans.Span], list[dict]]:
    """Spans of stretches that are one clip each, and failures for those that are too short."""
    found, failures = [], []
    for one in segments:
        if one.end_s - one.start_s < spans.MIN_SECONDS:
            detail = (
                f"{one.source}: [{one.start_s:g}, {one.end_s:g}] s were asked for, wanted at least "
                f"{spans.MIN_SECONDS} s"
            )
            failures.append(failure(one.source, "too_short", detail, clip_id=one.name))
            continue
        times = (one.start_s, one.end_s)
        found.append(spans.Span(one.source, one.split, 0, *times, one.name, one.labels))
    return found, failures


def write_probed(
    shards: storage.Storage, job: ProbeJob, found: list[spans.Span], failures: list[dict]
) -> None:
    """Leaves what was found in a chunk."""
    rows = [_fields(span) for span in found]
    _write_json(shards, job.done_name, {"spans": rows, "failures": failures})


def read_probed(data: bytes) -> tuple[list[spans.Span], list[dict]]:
    """Returns what `write_probed` wrote."""
    probed = json.loads(data)
    found = [spans.Span(*fields, _names(labels)) for *fields, labels in probed["spans"]]
    return found, probed["failures"]


def write_plan(
    shards: storage.Storage,
    found: list[spans.Span],
    failures: list[dict],
    settings: dict,
) -> Plan:
    """Gives every clip its shard and its place in it.

    Raises:
      ValueError: two clips have one id.
    """
    _check_ids(found)
    seed = settings["seed"]
    keyed = [(span.split, spans.order(span.clip_id, seed), span.clip_id, span) for span in found]
    keyed.sort(key=lambda one: one[:3])
    data, starts = _packed(_fields(one[-1]) for one in keyed)
    table, first = [], 0
    for split, group in itertools.groupby(keyed, key=lambda one: one[0]):
        mine = list(group)
        num_shards = settings["num_shards"] or -(-len(mine) // settings["clips_per_shard"])
        numbered = itertools.groupby(mine, key=functools.partial(_number, num_shards=num_shards))
        for number, members in numbered:
            last = first + len(list(members))
            where = (starts[first], starts[last] - starts[first], last - first)
            table.append([split, number, *where])
            first = last
    failures = sorted(failures, key=lambda one: (one["file"], one["detail"]))
    shards.write(CLIPS_NAME, data)
    plan = {"version": VERSION, "settings": settings, "shards": table, "failures": failures}
    _write_json(shards, PLAN_NAME, plan)
    return _plan(plan)


def read_plan(shards: storage.Storage, settings: dict) -> Plan | None:
    """The plan of an earlier run, if there is one.

    Raises:
      ValueError: it was made with other settings, or by another version of this program.
    """
    plan = _read_json(shards, PLAN_NAME)
    if plan is None:
        return None
    if "version" not in plan:
        check_settings(shards, plan["settings"], settings)
        plan = _rewrite_first_version(shards, plan)
    if plan["version"] != VERSION:
        raise ValueError(
            f"{shards} was begun by another version of this program (plan {plan['version']}, this "
            f"one writes {VERSION}); finish it with that, or use another folder"
        )
    check_settings(shards, plan["settings"], settings)
    return _plan(plan)


def read_spans(shards: storage.Storage, job: ShardJob) -> list[spans.Span]:
    """The spans of a shard, in the order of its records."""
    rows = _unpacked(shards, CLIPS_NAME, job.lines)
    return [spans.Span(*fields, _names(labels)) for *fields, labels in rows]


def check_settings(shards: storage.Storage, theirs: dict, ours: dict) -> None:
    """Raises ValueError if a set was begun with other settings; the time limit may change."""
    theirs = {**OLD_SETTINGS, **theirs}
    changed = [
        f"{name} was {theirs.get(name)}, now {ours[name]}"
        for name in ours
        if ours[name] != theirs.get(name) and name != "task_limit_s"
    ]
    if changed:
        raise ValueError(
            f"{shards} was begun with other settings ({'; '.join(changed)}); "
            "use the same ones, or another folder"
        )


def _number(keyed: tuple[str, int, str, spans.Span], num_shards: int) -> int:
    return spans.shard_number(keyed[1], num_shards)


def _check_ids(found: list[spans.Span]) -> None:
    seen: dict[str, str] = {}
    for span in found:
        if span.clip_id in seen:
            raise ValueError(
                f"two clips have the id {span.clip_id!r} (of {seen[span.clip_id]} and "
                f"{span.source}); give one of them another id in the manifest"
            )
        seen[span.clip_id] = span.source


def _plan(plan: dict) -> Plan:
    jobs = [ShardJob(row[0], row[1], Lines(*row[2:])) for row in plan["shards"]]
    return Plan(jobs, plan["failures"])


def _rewrite_first_version(shards: storage.Storage, plan: dict) -> dict:
    """Plans once held their spans, and shards were runs of them: they go on as they began."""
    lines, table = [], []
    for shard in plan["shards"]:
        table.append((shard["split"], shard["number"], len(lines), len(shard["spans"])))
        lines += [_fields(spans.Span(**fields)) for fields in shard["spans"]]
    data, starts = _packed(lines)
    files, _ = _packed([file] for file in plan["files"])
    rows = [
        [split, number, starts[first], starts[first + count] - starts[first], count]
        for split, number, first, count in table
    ]
    shards.write(STRETCHES_NAME, files)
    shards.write(CLIPS_NAME, data)
    new = {
        "version": VERSION,
        "settings": {**OLD_SETTINGS, **plan["settings"]},
        "shards": rows,
        "failures": plan["failures"],
    }
    _write_json(shards, PLAN_NAME, new)
    return new


def _fields(row: Segment | spans.Span) -> list:
    return [getattr(row, field.name) for field in dataclasses.fields(row)]


def _names(labels: list[str] | None) -> tuple[str, ...] | None:
    return None if labels is None else tuple(labels)


def _packed(rows: Iterable[list]) -> tuple[bytes, list[int]]:
    """JSON lines, and where each begins and the last one ends."""
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    return b"".join(lines), [0, *itertools.accumulate(map(len, lines))]


def _unpacked(shards: storage.Storage, name: str, lines: Lines) -> Iterator[list]:
    data = shards.read(name, lines.at, lines.length)
    if len(data) != lines.length:
        raise ValueError(
            f"{os.path.join(str(shards), name)} was cut short; delete {shards} and begin again"
        )
    return map(json.loads, data.splitlines())


def _write_json(shards: storage.Storage, name: str, content: dict) -> None:
    shards.write(name, json.dumps(content).encode())


def _read_json(shards: storage.Storage, name: str) -> dict | None:
    if name not in shards.sizes():
        return None
    return json.loads(shards.read(name))
