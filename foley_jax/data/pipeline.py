"""Shards -> batches, in an order that the seed alone decides; the only file that knows grain.

A batch is the same on any number of processes, read threads and workers, and is found without
reading those before it: the number of records taken so far is all that a run has to remember.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
import threading
from typing import Any

from array_record.python import array_record_module as array_record
from etils import epath
import grain
import numpy as np

from foley_jax.data import damage, records, shared_memory
from foley_jax.media import specs

MAX_DAMAGED = 4  # places of the data, for configs that do not say
MAX_OPEN_SHARDS = 512  # half of the files that a process may usually have open


class Source:
    """Random access to the decoded clips of one split.

    With `damages`, a clip that cannot be read is replaced by the next one of its shard that can,
    and a clip of a shard that is lost as a whole by the clip at the same place of the next shard:
    what stands in depends on the files and the index alone, so that batches stay the same for any
    number of threads, workers and processes, and from any step.

    Args:
      paths: shard files, in order.
      counts: number of records of each.
      damages: counts what cannot be read, up to its limit; None raises at once.
    """

    def __init__(
        self,
        paths: Sequence[epath.PathLike],
        counts: Sequence[int],
        damages: damage.Damages | None = None,
    ):
        self._paths = [str(path) for path in paths]
        self._counts = [int(count) for count in counts]
        self._first = np.cumsum([0, *counts])
        self._damages = damages
        self._open()

    def _open(self) -> None:
        self._readers: collections.OrderedDict[int, array_record.ArrayRecordReader] = (
            collections.OrderedDict()
        )
        self._lock = threading.Lock()
        self._lost: set[int] = set()  # records that are known not to be readable
        self._lost_shards: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        # worker processes open the files themselves
        kept = ("_paths", "_counts", "_first", "_damages")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> records.Clip:
        """Decodes one clip, or the one that stands in for it.

        Raises:
          IndexError: index is not in [0, len).
          ValueError: the record is damaged; the message names its shard. With `damages`, there
            are more than its limit, or nothing is left.
        """
        shard, place = self._place(index)
        if self._damages is None:
            try:
                return self._read(shard, place)
            except _Unreadable as error:
                raise self._refusal(shard, place, error) from error
        for candidate in self._stand_ins(shard, place):
            clip = self._try(*candidate)
            if clip is not None:
                return clip
        raise ValueError(f"not one record of {', '.join(self._paths)} can be read")

    def read_bytes(self, index: int) -> bytes:
        """The record as it is stored; raises as `[]` does without `damages`."""
        shard, place = self._place(index)
        try:
            return self._read_bytes(shard, place)
        except _Unreadable as error:
            raise self._refusal(shard, place, error) from error

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        return shard, int(index - self._first[shard])

    def _refusal(self, shard: int, place: int, error: "_Unreadable") -> ValueError:
        return ValueError(
            f"record {place} of {self._paths[shard]} cannot be read ({error}); delete the "
            "file and prepare the videos again"
        )

    def _stand_ins(self, shard: int, place: int) -> Iterator[tuple[int, int]]:
        """(shard, place) of a clip and of all that may take its turn, in order."""
        for k in range(len(self._paths)):
            other = (shard + k) % len(self._paths)
            count = self._counts[other]
            for j in range(count):
                if other in self._lost_shards:
                    break
                yield other, (place + j) % count

    def _try(self, shard: int, place: int) -> records.Clip | None:
        record = int(self._first[shard]) + place
        if record in self._lost:
            return None
        try:
            return self._read(shard, place)
        except _Unreadable as error:
            if error.whole_shard:
                self._lost_shards.add(shard)
                self._damages.note(self._paths[shard], str(error))
            else:
                self._lost.add(record)
                self._damages.note(f"record {place} of {self._paths[shard]}", str(error))
            return None

    def _read(self, shard: int, place: int) -> records.Clip:
        data = self._read_bytes(shard, place)
        try:
            return records.decode(data)
        except ValueError as error:
            raise _Unreadable(str(error)) from error

    def _read_bytes(self, shard: int, place: int) -> bytes:
        try:
            return self._reader(shard).read([place])[0]
        except RuntimeError:
            # once more from a fresh reader: the trouble may have been the way, not the file
            with self._lock:
                self._readers.pop(shard, None)
        try:
            return self._reader(shard).read([place])[0]
        except RuntimeError as error:
            raise _Unreadable(str(error)) from error

    def _reader(self, shard: int) -> array_record.ArrayRecordReader:
        with self._lock:
            reader = self._readers.pop(shard, None)
            if reader is not None:
                self._readers[shard] = reader  # now the one used last
                return reader
        path = self._paths[shard]
        # small buffers: records are read one by one, at random
        reader = array_record.ArrayRecordReader(
            path, "readahead_buffer_size:0", file_reader_buffer_size=32768
        )
        if not reader.ok() or reader.num_records() != self._counts[shard]:
            try:
                reader.read([0])
                why = f"holds {reader.num_records()} records, the index says {self._counts[shard]}"
            except RuntimeError as error:
                why = str(error)
            raise _Unreadable(why, whole_shard=True)
        with self._lock:
            self._readers[shard] = reader
            while len(self._readers) > MAX_OPEN_SHARDS:
                self._readers.popitem(last=False)  # closed when its last reading is over
        return reader


class _Unreadable(Exception):
    def __init__(self, why: str, whole_shard: bool = False):
        super().__init__(why)
        self.whole_shard = whole_shard


def open_split(data: Mapping[str, Any], split: str, video: specs.VideoSpec | None = None) -> Source:
    """Opens one split of a config's `data`; see `open_source`."""
    limit = data.get("max_damaged", MAX_DAMAGED)
    return open_source(data["dir"], split, video, max_damaged=limit)


def open_source(
    folder: epath.PathLike,
    split: str,
    video: specs.VideoSpec | None = None,
    *,
    max_damaged: int = 0,
) -> Source:
    """Opens one split of a folder of shards.

    Args:
      video: refuses images that were fitted in another way; None if images are not needed.
        Their rate and size are checked with every record.
      max_damaged: damaged records, and shards cut short or unreadable, that are passed over with
        a warning (see `Source`); one more stops. Every process counts what it meets itself.
    Raises:
      ValueError: no such folder, shard or split; the message names the command that makes it.
        Also if a shard is cut short and that is not tolerated.
    """
    index = records.read_index(folder)
    if video is not None:
        check_fit(folder, index, video)
    shards = records.shards_of(folder, split)
    paths = [epath.Path(folder) / shard.file for shard in shards]
    damages = None
    if max_damaged:
        damages = damage.Damages(max_damaged)
        for shard, path in zip(shards, paths):
            fault = records.shard_fault(folder, shard)
            if fault is not None and path.exists():
                damages.note(str(path), fault)
    if damages is None or not all(path.exists() for path in paths):
        records.shard_paths(folder, split)  # says what is missing or cut short
    return Source(paths, [shard.num_records for shard in shards], damages)


def check_fit(folder: epath.PathLike, index: records.Index, video: specs.VideoSpec) -> None:
    """Raises ValueError if the images of a set were not brought to their size as `video` says."""
    has, wants = (index.fit, index.antialias), (video.fit, video.antialias)
    if has != wants:
        flags = f"--fit={wants[0]} --{'' if wants[1] else 'no-'}antialias"
        raise ValueError(
            f"the images of {folder} have fit={has[0]}, antialias={has[1]}, wanted were "
            f"fit={wants[0]}, antialias={wants[1]}; prepare the videos again with `{flags}`, or "
            "write into config.video what the shards hold"
        )


def make_iterator(
    source: Sequence[Any],
    transform: Any,
    *,
    global_batch: int,
    seed: int,
    position: int,
    process_index: int,
    process_count: int,
    shuffle: bool = True,
    repeat: bool = True,
    read_threads: int = 4,
    workers: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """Iterates over this process's share of the batches that follow the first `position` records.

    Args:
      source: random access to records.
      transform: (source, index, rng) -> example; see `training.task.Transform`. Its `rng` is a
        function of the seed and the position in the stream (or the index, without shuffling).
      global_batch: examples of a batch over all processes.
      position: records of the stream, over all processes and epochs, that were taken before.
      shuffle: a new order in every epoch.
      repeat: go on for ever; otherwise one pass, without the incomplete last batch.
      read_threads: batches that are made ahead, each in its own thread.
      workers: processes that make batches, fewer where /dev/shm has no room for theirs; 0 makes
        them in this one.
    Yields:
      name -> array [global_batch / process_count, ...].
    Raises:
      ValueError: the batch does not divide among the processes, or (without `repeat`, or with
        `repeat` and no record at all) there is not one batch.
    """
    if global_batch % process_count:
        raise ValueError(
            f"batch_size {global_batch} does not divide among {process_count} processes"
        )
    left = len(source) - position
    if len(source) == 0 or (not repeat and left < global_batch):
        raise ValueError(f"{max(left, 0)} clips do not make one batch of {global_batch}")
    ds = grain.MapDataset.range(len(source)).seed(seed)
    if shuffle:
        ds = ds.shuffle()
    if repeat:
        ds = ds.repeat()
    # sliced behind the map, whose `rng` counts from the stream's begin
    examples = ds = ds.random_map(_Example(source, transform))[position:]
    # Slicing batches (not records) keeps every batch the same set for any number of processes.
    ds = ds.batch(global_batch // process_count, drop_remainder=True)
    if not repeat:
        ds = ds[: left // global_batch * process_count]
    ds = ds[process_index::process_count]
    options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=max(1, read_threads))
    ds = ds.to_iter_dataset(options)
    if workers:
        workers = shared_memory.workers_that_fit(
            workers, examples[0], global_batch // process_count
        )
    if not workers:
        return iter(ds)
    return shared_memory.named(
        iter(ds.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers)))
    )


class _Example:
    """The mapping from an index to an example, as an object that worker processes can be sent."""

    def __init__(self, source: Sequence[Any], transform: Any):
        self._source, self._transform = source, transform

    def __call__(self, index: int, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
        return self._transform(self._source, int(index), rng)
