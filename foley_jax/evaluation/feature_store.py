"""Features of files, computed once: a folder of small files named by what they depend on.

A feature is kept under the hash of the file's content and the key of its extraction (network,
weights, lengths, rates, preset): a renamed or copied file is not computed again, a changed one is,
and a stopped evaluation goes on where it was. A broken file of the store is made again.
B items of a batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from pathlib import Path
import tempfile
from typing import Any
import zipfile

import numpy as np
import tqdm

from foley_jax.evaluation import run_card
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.runtime import reasons

READERS = 2  # decoding threads
VERSION = 1  # of the files; another one is computed again
_PEAK = "peak"  # how loud what was read is, beside the features


@dataclasses.dataclass(frozen=True)
class Extraction:
    """How features come out of a file.

    Attributes:
      name: of the network, for progress bars.
      key: hash of everything the features depend on beside the file (`key_of`).
      read: file -> array of a fixed shape; raises MediaError.
      compute: [B, ...] -> name -> [B, ...].
      batch_size: items computed together; the last batch is filled up with its last item.
      by_batch: whether an item's features depend on its neighbours (official AudioCLIP): then
        they are kept per batch, the last batch is as small as it is, and one of a single item is
        left out by name.
      is_audio: whether `read` gives audio, whose silence is to be flagged.
    """

    name: str
    key: str
    read: Callable[[Path], np.ndarray]
    compute: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    batch_size: int = 8
    by_batch: bool = False
    is_audio: bool = True


def key_of(**settings: Any) -> str:
    """Key of an extraction from JSON-able settings; hash weights with `run_card.content_hash`."""
    text = json.dumps({"version": VERSION, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class _Item:
    """One file on its way through a network."""

    name: str
    path: Path
    array: np.ndarray
    kept: Path | None


class FeatureStore:
    """Where features are kept.

    Attributes:
      folder: None keeps nothing.
    """

    def __init__(self, folder: str | os.PathLike | None):
        self.folder = None if folder is None else Path(folder)

    def extract(
        self, paths: Mapping[str, Path], extraction: Extraction, what: str
    ) -> rules_lib.Extracted:
        """Features of all files: name -> {feature: array}, in the order of `paths`.

        What lies in the store is read, the rest is computed and kept; a file that cannot be read,
        or whose features are not finite, is named, and the rest goes on.
        """
        found: dict[str, dict[str, np.ndarray]] = {}
        unreadable: dict[str, str] = {}
        label = f"{what}: {extraction.name}"
        with tqdm.tqdm(total=len(paths), desc=label, unit="clip", leave=False) as bar:
            chunks = self._by_batch if extraction.by_batch else self._one_by_one
            for name, features in chunks(paths, extraction, unreadable):
                if broken := [k for k, v in features.items() if not np.isfinite(v).all()]:
                    why = f"{paths[name]}: {extraction.name} gives values that are not finite"
                    unreadable[name] = f"{why} ({', '.join(broken)})"
                else:
                    found[name] = features
                bar.update(len(found) + len(unreadable) - bar.n)
        ordered = {name: found[name] for name in paths if name in found}
        peaks = {name: float(features.pop(_PEAK)) for name, features in ordered.items()}
        silent = [n for n, p in peaks.items() if extraction.is_audio and p <= run_card.SILENT_PEAK]
        return rules_lib.Extracted(ordered, unreadable, tuple(silent))

    def _one_by_one(
        self, paths: Mapping[str, Path], extraction: Extraction, unreadable: dict[str, str]
    ) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Every item for itself."""
        waiting: dict[str, Path] = {}
        for name, path in paths.items():
            kept = self._place(extraction, _content(path))
            features = _load(kept)
            if features is None:
                waiting[name] = kept
            else:
                yield name, features
        items = []
        for item in _read(paths, waiting, extraction, unreadable):
            items.append(item)
            if len(items) == extraction.batch_size:
                yield from _computed(items, extraction, extraction.batch_size)
                items = []
        if items:
            yield from _computed(items, extraction, extraction.batch_size)

    def _by_batch(
        self, paths: Mapping[str, Path], extraction: Extraction, unreadable: dict[str, str]
    ) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Whole batches, of the readable items in their order."""
        items: list[_Item] = []
        for item in _read(paths, dict.fromkeys(paths), extraction, unreadable):
            items.append(item)
            if len(items) == extraction.batch_size:
                yield from self._batch(items, extraction)
                items = []
        if len(items) > 1:
            yield from self._batch(items, extraction)
        elif items:
            unreadable[items[0].name] = "left over: a batch of one has no statistics of its own"

    def _batch(
        self, items: Sequence[_Item], extraction: Extraction
    ) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """A batch whose items are kept under the hash of them all."""
        whole = hashlib.sha256("".join(_content(item.path) for item in items).encode()).hexdigest()
        placed = [
            dataclasses.replace(item, kept=self._place(extraction, f"{whole}-{place}"))
            for place, item in enumerate(items)
        ]
        stored = [_load(item.kept) for item in placed]
        if any(features is None for features in stored):
            yield from _computed(placed, extraction, len(placed))
        else:
            yield from zip((item.name for item in placed), stored, strict=True)

    def _place(self, extraction: Extraction, content: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / extraction.key[:24] / content[:2] / f"{content}.npz"


def _content(path: Path) -> str:
    """Hash of a file; of one that cannot be opened, a name under which nothing is kept."""
    try:
        stat = path.stat()
        return _hash(path, stat.st_size, stat.st_mtime_ns)
    except OSError:
        return "unreadable"


@functools.lru_cache(maxsize=1 << 16)
def _hash(path: Path, size: int, time_ns: int) -> str:
    """A file is read once for all networks that look at it, as long as it stays as it is."""
    del size, time_ns
    return run_card.content_hash(path)


def _read(
    paths: Mapping[str, Path],
    waiting: Mapping[str, Path | None],
    extraction: Extraction,
    unreadable: dict[str, str],
) -> Iterator[_Item]:
    """Decodes in threads, a batch ahead; names what cannot be read."""
    names, ahead = list(waiting), extraction.batch_size + READERS
    with futures.ThreadPoolExecutor(READERS) as pool:
        pending = [pool.submit(extraction.read, paths[name]) for name in names[:ahead]]
        for place, name in enumerate(names):
            try:
                array = pending.pop(0).result()
                yield _Item(name, paths[name], array, waiting[name])
            except Exception as error:  # one bad file never stops the rest
                unreadable[name] = reasons.of(error)
            if place + ahead < len(names):
                pending.append(pool.submit(extraction.read, paths[names[place + ahead]]))


def _computed(
    items: Sequence[_Item], extraction: Extraction, size: int
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Computes and keeps one batch."""
    arrays = [item.array for item in items]
    arrays += [arrays[-1]] * (size - len(arrays))  # one shape, one compilation
    rows = {key: np.asarray(v) for key, v in extraction.compute(np.stack(arrays)).items()}
    for place, item in enumerate(items):
        features = {key: value[place] for key, value in rows.items()}
        features[_PEAK] = np.abs(item.array).max(initial=0).astype(np.float32)
        _save(item.kept, features)
        yield item.name, features


def _load(path: Path | None) -> dict[str, np.ndarray] | None:
    """Returns what is kept under a name; None if nothing, or if it is broken."""
    if path is None:
        return None
    try:
        with np.load(path) as stored:
            return {key: stored[key] for key in stored.files} if _PEAK in stored.files else None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def _save(path: Path | None, features: Mapping[str, np.ndarray]) -> None:
    """Whole or not at all: written beside, then moved."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **features)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
