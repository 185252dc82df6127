"""Folders of clips beside a training set: who is whose nearest neighbour, by one descriptor.

M training items, N items of another set, D width of a descriptor.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Protocol

import numpy as np
import tqdm

from foley_jax.evaluation import feature_store, run_card, seeds
from foley_jax.evaluation.memorisation import clip_descriptors, neighbours
from foley_jax.media import files
from foley_jax.media import video as video_io
from foley_jax.runtime import reasons

TRAINING = "training, each among the others"
HELD_OUT = "held-out"
SLACK = 0.05  # a file may be shorter than an item by this share of it


class NothingToCompare(ValueError):
    """A set of which a descriptor can read nothing."""


class Lengths(Protocol):
    """How long an item is, and how far apart the spans of a training file, seconds."""

    seconds: float
    stride_s: float
    metric: neighbours.Metric


@dataclasses.dataclass(frozen=True)
class Collection:
    """The clips of a folder.

    Attributes:
      what: for messages.
      media: "audio" and "image" -> name -> file.
    """

    what: str
    folder: Path
    media: Mapping[clip_descriptors.Medium, Mapping[str, Path]]

    @classmethod
    def of(cls, what: str, folder: Path, leave_out: Sequence[Path] = ()) -> "Collection":
        """Raises:
        FileNotFoundError: no folder, or no audio clips and no videos in it.
        ValueError: the folder is to be left out.
        """
        audio_clips = run_card.find_audio(folder, leave_out=leave_out)
        images = run_card.find_items(folder, files.VIDEO_SUFFIXES, leave_out)
        return cls(what, folder, {"audio": audio_clips, "image": images})

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted({name for paths in self.media.values() for name in paths}))

    def files(self) -> Iterator[tuple[str, Path]]:
        """(name, file) of every file, one that gives both audio and video once."""
        yield from sorted({(n, p) for paths in self.media.values() for n, p in paths.items()})

    def without(self, names: Iterable[str]) -> "Collection":
        gone = set(names)
        media = {
            medium: {name: path for name, path in paths.items() if name not in gone}
            for medium, paths in self.media.items()
        }
        return dataclasses.replace(self, media=media)


@dataclasses.dataclass(frozen=True)
class Gathered:
    """Descriptors of a collection's items, in order.

    Attributes:
      names, starts_s: of every item, its file's stem and where in the file it begins.
      features_ND: float32.
      account: which files were asked for, and what became of them.
    """

    collection: Collection
    names: tuple[str, ...]
    starts_s: tuple[float, ...]
    features_ND: np.ndarray
    account: run_card.Account

    @property
    def groups_N(self) -> np.ndarray:
        """A number per item, the same for spans of one file."""
        return np.unique(self.names, return_inverse=True)[1]


def lengths_s(paths: Mapping[str, Path]) -> tuple[dict[str, float], dict[str, str]]:
    """Name -> length in seconds, and name -> why a file has none."""
    found, unreadable = {}, {}
    for name, path in tqdm.tqdm(paths.items(), desc="lengths", unit="file", leave=False):
        try:
            found[name] = video_io.probe(path).duration_s
        except Exception as error:  # one bad file never stops the rest
            unreadable[name] = reasons.of(error)
    return found, unreadable


def gather(
    collection: Collection,
    descriptor: clip_descriptors.Descriptor,
    store: feature_store.FeatureStore,
    seconds: float,
    stride_s: float | None = None,
) -> Gathered:
    """Descriptors of the first `seconds` of every file, or of spans every `stride_s`.

    Files that are shorter by more than `SLACK` are accounted for as unreadable.

    Raises:
      NothingToCompare: not one item.
    """
    paths = collection.media[descriptor.medium]
    lengths, unreadable = lengths_s(paths)
    starts: dict[float, dict[str, Path]] = {}
    for name, length_s in lengths.items():
        if length_s < seconds * (1 - SLACK):
            unreadable[name] = f"{paths[name]}: {length_s:.2f} s long, expected {seconds:g} s"
            continue
        last = 0 if stride_s is None else max(0, int((length_s - seconds) / stride_s + 1e-6))
        for place in range(last + 1):
            starts.setdefault(place * (stride_s or 0.0), {})[name] = paths[name]
    items, silent = {}, set()
    for start_s, there in sorted(starts.items()):
        found = store.extract(there, descriptor.at(start_s), collection.what)
        unreadable |= found.unreadable
        silent |= set(found.silent)
        for name, features in found.items.items():
            items[name, start_s] = np.ravel(features[descriptor.output])
    scored = sorted({name for name, _ in items})
    account = run_card.Account(
        requested=collection.names,
        scored=tuple(scored),
        missing=tuple(name for name in collection.names if name not in paths),
        unreadable={name: why for name, why in unreadable.items() if name not in scored},
        silent=tuple(sorted(silent)),
    )
    if not items:
        reasons = [*account.unreadable.values(), f"{collection.folder} has no such files"]
        raise NothingToCompare(f"{collection.what}: no {descriptor.medium} ({reasons[0]})")
    keys = sorted(items)
    names, begins = zip(*keys, strict=True)
    return Gathered(collection, names, begins, np.stack([items[key] for key in keys]), account)


@dataclasses.dataclass(frozen=True)
class Run:
    """Items of one folder, and what is nearest to them."""

    items: Gathered
    nearest: neighbours.Nearest


@dataclasses.dataclass(frozen=True)
class Compared:
    """All sets beside the training set, by one descriptor.

    Attributes:
      training: the items that were searched.
      systems: name -> runs; `HELD_OUT` first, and `TRAINING` where training files can be told
        apart.
    """

    descriptor: clip_descriptors.Descriptor
    training: Gathered
    search: neighbours.Training
    systems: dict[str, list[Run]]

    @classmethod
    def of(
        cls,
        training: Collection,
        held_out: Collection,
        descriptor: clip_descriptors.Descriptor,
        settings: Lengths,
        store: feature_store.FeatureStore,
    ) -> "Compared":
        """Raises:
        NothingToCompare: no training items, or no held-out ones.
        """
        among = gather(training, descriptor, store, settings.seconds, settings.stride_s)
        real = gather(held_out, descriptor, store, settings.seconds)
        search = neighbours.Training(
            among.features_ND, among.groups_N, metric=settings.metric, units=descriptor.units
        )
        systems = {HELD_OUT: [Run(real, search.nearest(real.features_ND))]}
        if len(among.account.scored) > 1:
            systems[TRAINING] = [Run(among, search.leave_one_out())]
        return cls(descriptor, among, search, systems)

    def add(
        self,
        name: str,
        runs: Sequence[Collection],
        seconds: float,
        store: feature_store.FeatureStore,
    ) -> None:
        """Enters a system with its runs (seeds).

        Raises:
          NothingToCompare: a run without items.
        """
        gathered = [gather(run, self.descriptor, store, seconds) for run in runs]
        self.systems[name] = [Run(g, self.search.nearest(g.features_ND)) for g in gathered]

    @property
    def held_out(self) -> neighbours.Nearest:
        return self.systems[HELD_OUT][0].nearest

    def figures(self) -> dict[str, dict[str, float]]:
        """System -> `neighbours.figures`, means over its runs."""
        result = {}
        for name, runs in self.systems.items():
            beside = None if name == HELD_OUT else self.held_out
            result[name] = seeds.merge([neighbours.figures(r.nearest, beside) for r in runs])
        return result

    def rows(self) -> Iterator[dict[str, str | float]]:
        """A row per item of every set but the training set, for `tables.write_per_sample`."""
        limit = neighbours.near_limit(self.held_out)
        for system, runs in self.systems.items():
            if system == TRAINING:
                continue
            for number, run in enumerate(runs):
                for i, name in enumerate(run.items.names):
                    yield {
                        "system": system,
                        "name": name,
                        "run": number,
                        "descriptor": self.descriptor.name,
                        "status": "silent" if name in run.items.account.silent else "scored",
                        **self._row(run.nearest, i, limit),
                    }
                for status in ("missing", "unreadable"):
                    for name in getattr(run.items.account, status):
                        row = {"system": system, "name": name, "run": number, "status": status}
                        yield {**row, "descriptor": self.descriptor.name}

    def _row(self, nearest: neighbours.Nearest, i: int, limit: float) -> dict[str, str | float]:
        first, second = nearest.index_N[i], nearest.second_index_N[i]
        return {
            "neighbour": self.training.names[first],
            "neighbour_start_s": self.training.starts_s[first],
            "distance": float(nearest.distance_N[i]),
            "second": self.training.names[second] if second >= 0 else "",
            "second_distance": float(nearest.second_N[i]),
            "ratio": float(nearest.ratio_N[i]),
            "nearer": int(nearest.distance_N[i] < limit),
        }

    def closest(self, system: str, most: int) -> list[tuple[Run, int]]:
        """The items of a system nearest to the training set, all runs, as (run, number)."""
        pairs = [(run, i) for run in self.systems[system] for i in range(len(run.items.names))]
        return sorted(pairs, key=lambda pair: pair[0].nearest.distance_N[pair[1]])[:most]
