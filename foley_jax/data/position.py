"""Where a run stands in its data: how many records it has taken, and in which order they come.

The position is a number of records, not of batches: another batch size neither repeats a record nor
passes one over. It means the same only while the records come in the same order, which the seed,
their number and their sequence in the shards decide; the division into shards does not.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
from typing import Any, Self

from etils import epath

from foley_jax.data import pipeline, records

PROBES = 16  # records whose ids are compared where the files are others


@dataclasses.dataclass(frozen=True)
class Order:
    """Decides which record stands where in the stream of a run.

    Attributes:
      seed: of the shuffling.
      num_records: records of an epoch.
      digest: of the shard files, one after the other.
      ids: of `PROBES` records at even distances (or of all); None where one cannot be read.
    """

    seed: int
    num_records: int
    digest: str
    ids: tuple[str | None, ...]

    @classmethod
    def of(cls, folder: epath.PathLike, split: str, source: pipeline.Source, seed: int) -> Self:
        """Returns the order in which a run takes the records of an open split.

        Raises:
          ValueError: no set there, or no such split in it.
        """
        shards = records.shards_of(folder, split)
        digest = hashlib.sha256("\n".join(one.sha256 for one in shards).encode()).hexdigest()
        places = {k * (len(source) - 1) // max(1, PROBES - 1) for k in range(PROBES)}
        return cls(seed, len(source), digest, tuple(_id(source, i) for i in sorted(places)))

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Returns what `dataclasses.asdict` and JSON made of an order."""
        return cls(**{**fields, "ids": tuple(fields["ids"])})

    def has_the_records_of(self, other: Self) -> bool:
        """Whether the same records come in the same sequence, before they are shuffled."""
        if self.digest == other.digest:
            return True
        if self.num_records != other.num_records or len(self.ids) != len(other.ids):
            return False
        pairs = [(a, b) for a, b in zip(self.ids, other.ids) if None not in (a, b)]
        return bool(pairs) and all(a == b for a, b in pairs)


def _id(source: pipeline.Source, index: int) -> str | None:
    try:
        return records.decode(source.read_bytes(index)).id
    except ValueError:  # damage is counted where the record is wanted
        return None


def continued(taken: int, before: Order | None, now: Order) -> int:
    """Returns the position in the order `now` of a run that took records in the order `before`.

    The same one if the orders are one. Else the first record of an epoch that has not begun: every
    record of the new order comes before one comes twice.

    Args:
      taken: records taken so far, of all epochs.
      before: None if that is not known.
    """
    if before is None:
        return -(-taken // now.num_records) * now.num_records
    if before.seed == now.seed and now.has_the_records_of(before):
        return taken
    return -(-taken // before.num_records) * now.num_records
