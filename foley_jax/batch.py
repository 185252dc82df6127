"""A folder of files through a model: resumable, reading and saving in threads beside the device."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
import contextlib
import json
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from foley_jax.media import audio as audio_io
from foley_jax.media import spool

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
READERS = 2  # decoding threads
HELD_BYTES = 1 << 30  # decoded video that may wait; a 10-minute one at 4 fps is 0.36 GB
ERRORS = (OSError, ValueError)  # what a bad file, or a full disk, raises


class Job(Protocol):
    """How one batch turns videos into clips; see `foley_jax.sample` for the makers."""

    def read(self, video: Path) -> Any:
        """Decodes one video (runs in a thread)."""

    def make(self, sources: Sequence[Any]) -> Any:
        """The device's work for a group of sources."""

    def finish(self, made: Any) -> Sequence[Sequence[Any]]:
        """Turns that into clips, best first, for every source (runs in a thread beside the
        next group's `make`); clips have save, plot, scores."""

    def settings(self) -> dict:
        """What the result depends on, JSON-able; another value makes every video again."""


def find_files(
    inputs: Iterable[str | os.PathLike], suffixes: Sequence[str] = VIDEO_SUFFIXES
) -> list[Path]:
    """Files as given, folders searched through; sorted inside each folder."""
    found = []
    for item in map(Path, inputs):
        if item.is_dir():
            inside = (p for p in item.rglob("*") if p.suffix.lower() in suffixes)
            found.extend(sorted(inside))
        else:
            found.append(item)
    return found


def output_names(videos: Sequence[Path]) -> list[str]:
    """A file stem per video; videos of the same name in different folders get a number."""
    seen: dict[str, int] = {}
    names = []
    for video in videos:
        seen[video.stem] = seen.get(video.stem, 0) + 1
        count = seen[video.stem]
        names.append(video.stem if count == 1 else f"{video.stem}_{count}")
    return names


class ScoreFile:
    """`scores.json`: one entry per finished video; what makes a batch resumable.

    While a batch runs, its entries are lines of `scores.INDEX.jsonl`, a file for each process;
    `merge` makes `scores.json` of what all processes, and runs that were killed, have left.

    Attributes:
      done: the entries there are, made with the same settings, by name.
    """

    def __init__(self, folder: Path, settings: dict, index: int = 0):
        # as it comes back from a file: tuples are lists
        self.path, self.settings = folder / "scores.json", json.loads(json.dumps(settings))
        self._part = folder / f"scores.{index}.jsonl"
        self._own = self._lines(self._part)
        self._open = False
        self.done = self._found()

    def add(self, name: str, entry: dict) -> None:
        """Remembers a video, whatever happens next."""
        self.done[name] = self._own[name] = entry
        if self._open:
            with self._part.open("a") as file:
                file.write(json.dumps([name, entry]) + "\n")
            return
        if self._stored() is None:
            self.path.unlink(missing_ok=True)  # files of its settings are being overwritten
        lines = [{"settings": self.settings}, *map(list, self._own.items())]
        _replace(self._part, "".join(json.dumps(line) + "\n" for line in lines))
        self._open = True

    def merge(self) -> None:
        """Writes `scores.json`, for all processes: when they have ended, and only one of them."""
        self.done = self._found()
        whole = {"settings": self.settings, "clips": dict(sorted(self.done.items()))}
        if self.done:
            write_json(self.path, whole)
        for part in self._parts():
            part.unlink()
        self._open = False

    def _found(self) -> dict[str, dict]:
        found = dict(self._stored() or {})
        for part in self._parts():
            found |= self._lines(part)
        return found

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob("scores.*.jsonl"))

    def _stored(self) -> dict[str, dict] | None:
        """Entries of `scores.json`; None if there is none or it is of other settings."""
        stored = json.loads(_text(self.path) or "{}")
        return stored["clips"] if stored.get("settings") == self.settings else None

    def _lines(self, part: Path) -> dict[str, dict]:
        """Entries of a process's file; none if it is of other settings."""
        text = _text(part)
        # a killed process may leave half a line
        first, *rest = map(json.loads, text[: text.rfind("\n") + 1].splitlines() or ["{}"])
        return dict(rest) if first.get("settings") == self.settings else {}


def _text(path: Path) -> str:
    """What is in a file that another process may take away; nothing if there is none."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def write_json(path: Path, value: Any) -> None:
    """Writes a file that is whole whenever somebody reads it."""
    _replace(path, json.dumps(value, indent=1))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def nbytes(source: Any) -> int:
    """Memory of a decoded video, as far as it tells."""
    return getattr(source, "nbytes", 0)


def _prefetch(pool: futures.Executor, fn, items: Sequence, ahead: int) -> Iterator:
    """Yields (item, future) in order; up to `ahead` of them, or `HELD_BYTES`, are under way."""
    queue: collections.deque[tuple[Any, futures.Future]] = collections.deque()
    remaining, largest = collections.deque(items), 0
    while queue or remaining:
        done = [nbytes(f.result()) for _, f in queue if f.done() and f.exception() is None]
        largest = max([largest, *done])
        reading = sum(not f.done() for _, f in queue)
        # what is still being read is taken to be as large as the largest so far
        room = sum(done) + largest * reading < HELD_BYTES and (largest or reading <= READERS)
        if remaining and (not queue or (len(queue) < ahead and room)):
            item = remaining.popleft()
            queue.append((item, pool.submit(fn, item)))
        else:
            yield queue.popleft()


def save_clip(
    path: str | os.PathLike,
    audio: np.ndarray,
    sample_rate_hz: int,
    *,
    name: str,
    save_video: Callable[[Path], None],
) -> None:
    """Writes a clip's sound as `.wav`, or calls `save_video` for the path of a video file.

    Args:
      audio: float32 [samples] in about [-1, 1].
      name: of the clip, for messages.
    Raises:
      ValueError: the suffix is neither `.wav` nor a video container, or the sound is not finite.
    """
    path = Path(path)
    if not all(np.isfinite(piece).all() for piece in spool.pieces(audio)):
        raise ValueError(
            f"the sound made for {name} is not finite; check the model's training, or use "
            "--dtype=float32"
        )
    if path.suffix not in (".wav", *VIDEO_SUFFIXES):
        raise ValueError(f"cannot save a clip as {path.suffix!r}; use .wav or .mp4")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".wav":
        audio_io.write_wav(path, audio, sample_rate_hz)
    else:
        save_video(path)


class Shelf(Protocol):
    """Where clips go, and what is there already."""

    def has(self, name: str) -> bool:
        """Whether a video needs nothing any more."""

    def save(self, clips: Sequence[Any], name: str) -> None:
        """Writes what `Job.finish` gave for a video (runs in a thread)."""

    def add(self, name: str, video: Path, clips: Sequence[Any]) -> None:
        """Remembers that they are written."""

    def close(self) -> None:
        """The batch is over, or broken off."""


class Folder:
    """`Shelf` of one folder: sound, picture with sound, and plot of each clip, best first."""

    def __init__(self, out: Path, settings: dict):
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.scores = out, ScoreFile(out, settings)

    def has(self, name: str) -> bool:
        return name in self.scores.done

    def save(self, clips: Sequence[Any], name: str) -> None:
        for rank, clip in reversed(list(enumerate(clips, 1))):
            stem = name if rank == 1 else f"{name}.best{rank}"
            clip.save(self.out / f"{stem}.wav")
            clip.plot(self.out / f"{stem}.png")
            clip.save(self.out / f"{stem}.mp4")

    def add(self, name: str, video: Path, clips: Sequence[Any]) -> None:
        entry = {"video": str(video), **clips[0].scores}
        if len(clips) > 1:
            entry["others"] = [clip.scores for clip in clips[1:]]
        self.scores.add(name, entry)

    def close(self) -> None:
        self.scores.merge()


class Batch:
    """One run over a list of videos; one bad file never stops the rest.

    What the shelf has is skipped.

    Attributes:
      failures: path -> reason, of the videos that failed so far.
    """

    def __init__(
        self,
        job: Job,
        videos: Sequence[Path],
        shelf: Shelf,
        *,
        names: Sequence[str] | None = None,
        group: int = 16,
        progress: Callable[[int], Any] = lambda n: None,
        when_warm: Callable[[], Any] | None = None,
    ):
        """Finds what there is to do.

        Args:
          names: of the clips of each video; by default `output_names`.
          group: videos made together.
          progress: called with a number of videos that are done or have failed.
          when_warm: called once, after the first group; the others then wait for that group.
        """
        self.job, self.shelf, self.group, self.progress = job, shelf, group, progress
        self.when_warm = when_warm
        self.names = dict(zip(videos, names or output_names(videos), strict=True))
        self.todo = [v for v in videos if not shelf.has(self.names[v])]
        self.failures: dict[str, str] = {}
        progress(len(videos) - len(self.todo))

    def run(self) -> dict[str, str]:
        """Makes every remaining clip; returns `failures`."""
        with (
            contextlib.closing(self.shelf),
            futures.ThreadPoolExecutor(READERS) as readers,
            futures.ThreadPoolExecutor(1) as finisher,
            futures.ThreadPoolExecutor(2) as writers,
        ):
            under_way = collections.deque()
            for group in self._groups(readers):
                under_way.append(finisher.submit(self._finish, self._made(group), writers))
                waiting = 0 if self.when_warm else 1  # at most one group beside the device
                while len(under_way) > waiting:
                    self._collect(under_way.popleft().result())
                if self.when_warm:
                    self.when_warm()
                    self.when_warm = None
            for pending in under_way:
                self._collect(pending.result())
        return self.failures

    def _groups(self, readers: futures.Executor) -> Iterator[list[tuple[Path, Any]]]:
        """Decoded videos in groups of `group`, or fewer where they are long."""
        ready: list[tuple[Path, Any]] = []
        for video, pending in _prefetch(readers, self.job.read, self.todo, 2 * self.group):
            try:
                ready.append((video, pending.result()))
            except ERRORS as error:
                self._fail(video, error)
            held = sum(nbytes(source) for _, source in ready)
            if len(ready) == self.group or held >= HELD_BYTES:
                yield ready
                ready = []
        if ready:
            yield ready

    def _made(self, group: list[tuple[Path, Any]]) -> list[tuple[list[Path], Any]]:
        """(videos, what `make` gave) of a group; one by one if the group as a whole fails."""
        try:
            return [([video for video, _ in group], self.job.make([s for _, s in group]))]
        except ERRORS as error:
            if len(group) == 1:
                self._fail(group[0][0], error)
                return []
        return [made for one in group for made in self._made([one])]

    def _finish(
        self, parts: list[tuple[list[Path], Any]], writers: futures.Executor
    ) -> list[tuple[Path, Sequence[Any], futures.Future]]:
        """Starts saving everything; (video, clips, its saving) of each."""
        saves = []
        for videos, made in parts:
            for video, clips in zip(videos, self.job.finish(made), strict=True):
                save = writers.submit(self.shelf.save, clips, self.names[video])
                saves.append((video, clips, save))
        return saves

    def _collect(self, saves: list[tuple[Path, Sequence[Any], futures.Future]]) -> None:
        for video, clips, save in saves:
            try:
                save.result()
            except ERRORS as error:
                self._fail(video, error)
                continue
            self.shelf.add(self.names[video], video, clips)
            self.progress(1)

    def _fail(self, video: Path, error: Exception) -> None:
        self.failures[str(video)] = str(error)
        self.progress(1)
