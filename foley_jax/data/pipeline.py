"""Shards -> batches, in an order that the seed alone decides; the only file that knows grain.

Batch k is the same on any number of processes, read threads and workers, and is found without
reading the batches before it: nothing about the data needs to be saved with a checkpoint.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from array_record.python import array_record_data_source as array_record
from etils import epath
import grain
import numpy as np

from foley_jax.data import records
from foley_jax.media import specs


class Source:
    """Random access to the decoded clips of one split.

    Args:
      paths: shard files, in order.
      counts: number of records of each.
    """

    def __init__(self, paths: Sequence[epath.PathLike], counts: Sequence[int]):
        self._paths = [str(path) for path in paths]
        self._first = np.cumsum([0, *counts])
        self._reader: array_record.ArrayRecordDataSource | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}  # worker processes open the files themselves

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> records.Clip:
        """Decodes one clip.

        Raises:
          IndexError: index is not in [0, len).
          ValueError: the record is damaged; the message names its shard.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        try:
            if self._reader is None:
                self._reader = array_record.ArrayRecordDataSource(self._paths)
            return records.decode(self._reader[index])
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"record {index - self._first[shard]} of {self._paths[shard]} cannot be read "
                f"({error}); delete the file and prepare the videos again"
            ) from error


def open_source(folder: epath.PathLike, split: str, video: specs.VideoSpec | None = None) -> Source:
    """Opens one split of a folder of shards.

    Args:
      video: refuses pictures that were fitted in another way; None if pictures are not needed.
        Their rate and size are checked with every record.
    Raises:
      ValueError: no such folder, shard or split; the message names the command that makes it.
    """
    paths = records.shard_paths(folder, split)
    index = records.read_index(folder)
    if video is not None:
        check_fit(folder, index, video)
    counts = {shard.file: shard.num_records for shard in index.shards}
    return Source(paths, [counts[path.name] for path in paths])


def check_fit(folder: epath.PathLike, index: records.Index, video: specs.VideoSpec) -> None:
    """Raises ValueError if the pictures of a set were not brought to their size as `video` says."""
    has, wants = (index.fit, index.antialias), (video.fit, video.antialias)
    if has != wants:
        flags = f"--fit={wants[0]} --{'' if wants[1] else 'no-'}antialias"
        raise ValueError(
            f"the pictures of {folder} have fit={has[0]}, antialias={has[1]}, wanted were "
            f"fit={wants[0]}, antialias={wants[1]}; prepare the videos again with `{flags}`, or "
            "write into config.video what the shards hold"
        )


def make_iterator(
    source: Sequence[Any],
    transform: Any,
    *,
    global_batch: int,
    seed: int,
    step: int,
    process_index: int,
    process_count: int,
    shuffle: bool = True,
    repeat: bool = True,
    read_threads: int = 4,
    workers: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """Iterates over this process's rows of batch `step`, `step + 1`, ...

    Args:
      source: random access to records.
      transform: (source, index, rng) -> example; see `training.task.Transform`. Its `rng` is a
        function of the seed and the position in the stream (or the index, without shuffling).
      global_batch: examples of a batch over all processes.
      step: batch to start with.
      shuffle: a new order in every epoch.
      repeat: go on for ever; otherwise one pass, without the incomplete last batch.
      read_threads: batches that are made ahead, each in its own thread.
      workers: processes that make batches; 0 makes them in this one.
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
    if len(source) == 0 or (not repeat and len(source) < global_batch):
        raise ValueError(f"{len(source)} clips do not make one batch of {global_batch}")
    ds = grain.MapDataset.range(len(source)).seed(seed)
    if shuffle:
        ds = ds.shuffle()
    if repeat:
        ds = ds.repeat()
    ds = ds.random_map(_Example(source, transform))
    # Slicing batches (not records) keeps every batch the same set for any number of processes.
    ds = ds.batch(global_batch // process_count, drop_remainder=True)
    if not repeat:
        ds = ds[: len(source) // global_batch * process_count]
    ds = ds[process_index::process_count][step:]
    options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=max(1, read_threads))
    ds = ds.to_iter_dataset(options)
    if workers:
        ds = ds.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(ds)


class _Example:
    """The mapping from an index to an example, as an object that worker processes can be sent."""

    def __init__(self, source: Sequence[Any], transform: Any):
        self._source, self._transform = source, transform

    def __call__(self, index: int, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
        return self._transform(self._source, int(index), rng)
