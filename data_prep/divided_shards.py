"""A new set made shard by shard from another one, by any number of processes in any order.

Process i of n writes shards i, i + n, ... A shard appears whole, with a small file beside it that
says what is in it; whoever finds all of them there writes the index. Nothing else is shared but
the folder: a process may be killed and started again, on another machine too.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import json
import pathlib
import time
from types import MappingProxyType
from typing import Any

from array_record.python import array_record_module as array_record

from data_prep import storage
from foley_jax.data import records

POLL_S = 2.0
SETTINGS_NAME = "features.json"


def check_share(process_index: int, process_count: int) -> None:
    """Raises ValueError if there is no such process."""
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process {process_index} of {process_count}: processes are numbered from 0 to "
            f"{process_count - 1}"
        )


def claim(
    out: pathlib.Path,
    settings: Mapping[str, Any],
    *,
    free: Sequence[str] = (),
    earlier: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Notes what a set depends on in its folder, or checks that it is what was noted there.

    Args:
      settings: values for JSON.
      free: names of those that may change.
      earlier: values of those that were not noted once.
    Raises:
      ValueError: the folder was begun with other settings, or holds something else.
    """
    path = out / SETTINGS_NAME
    # asked first: another process may write settings, and then shards, at any moment
    foreign = out.exists() and any(out.glob("*.arrayrecord"))
    if path.exists():
        before = {**earlier, **json.loads(path.read_text())}
        changed = [k for k in settings if k not in free and settings[k] != before.get(k)]
        if changed:
            raise ValueError(
                f"{out} was begun with other settings ({', '.join(changed)} differ); "
                "delete it or write to another folder"
            )
        return
    if foreign:
        raise ValueError(f"{out} holds shards that are not features of this set; choose another")
    out.mkdir(parents=True, exist_ok=True)
    storage.Storage(out).write(SETTINGS_NAME, (json.dumps(settings, indent=1) + "\n").encode())


def share(
    index: records.Index, process_index: int, process_count: int
) -> Iterator[tuple[records.ShardInfo, range]]:
    """This process's shards, each with the places of its clips in its split."""
    number = 0
    for split in index.splits:
        first = 0
        for shard in (s for s in index.shards if s.split == split and s.num_records):
            if number % process_count == process_index:
                yield shard, range(first, first + shard.num_records)
            first += shard.num_records
            number += 1


def finished(out: pathlib.Path, shard: records.ShardInfo) -> records.ShardInfo | None:
    """Returns what was written for a shard of the first set; None if that is not (wholly) there.

    A shard without its note, left by a kill between the two, is looked at and gets one.
    """
    path, note = out / shard.file, _note_path(out, shard)
    if not path.is_file():
        return None
    if note.is_file():
        info = records.ShardInfo(**json.loads(note.read_text()))
        if path.stat().st_size == info.bytes and info.num_records == shard.num_records:
            return info
    if not _holds(path, shard.num_records):
        return None
    info = dataclasses.replace(shard, bytes=path.stat().st_size, sha256=records.sha256(path))
    note_finished(out, info)
    return info


def _holds(path: pathlib.Path, num_records: int) -> bool:
    reader = array_record.ArrayRecordReader(str(path), "readahead_buffer_size:0")
    return reader.ok() and reader.num_records() == num_records


def note_finished(out: pathlib.Path, info: records.ShardInfo) -> None:
    """Writes what is in a finished shard beside it."""
    text = json.dumps(dataclasses.asdict(info)) + "\n"
    storage.Storage(out).write(_note_path(out, info).name, text.encode())


def _note_path(out: pathlib.Path, shard: records.ShardInfo) -> pathlib.Path:
    return out / f".done-{pathlib.Path(shard.file).stem}.json"


def all_finished(out: pathlib.Path, index: records.Index) -> list[records.ShardInfo] | None:
    """Returns what was written for every shard, in the index's order; None if one is missing."""
    infos = []
    for shard in index.shards:
        if not shard.num_records:
            continue
        info = finished(out, shard)
        if info is None:
            return None
        infos.append(info)
    return infos


def wait_for_all(out: pathlib.Path, index: records.Index) -> list[records.ShardInfo]:
    """Waits until the other processes have written theirs too; see `all_finished`."""
    while (infos := all_finished(out, index)) is None:
        time.sleep(POLL_S)
    return infos


def remove_left_overs(out: pathlib.Path) -> None:
    """Unfinished shards of killed processes; only for when nobody writes shards any more."""
    for left_over in out.glob(".*.arrayrecord.*.part"):
        left_over.unlink(missing_ok=True)
