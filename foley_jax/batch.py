"""A folder of files through a model: resumable, reading and saving in threads beside the device."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
import json
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from foley_jax.media import audio as audio_io

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus")
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
    """`scores.json`: one entry per finished video; what makes a batch resumable."""

    def __init__(self, path: Path, settings: dict):
        self.path, self.settings = path, settings
        self.done: dict[str, dict] = {}
        if path.exists():
            stored = json.loads(path.read_text())
            if stored.get("settings") == settings:
                self.done = stored["clips"]

    def add(self, name: str, entry: dict) -> None:
        self.done[name] = entry
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"settings": self.settings, "clips": self.done}, indent=1))
        temporary.replace(self.path)


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
    if not np.isfinite(audio).all():
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


def _save_all(clips: Sequence[Any], out: Path, name: str) -> None:
    for rank, clip in reversed(list(enumerate(clips, 1))):
        stem = name if rank == 1 else f"{name}.best{rank}"
        clip.save(out / f"{stem}.wav")
        clip.plot(out / f"{stem}.png")
        clip.save(out / f"{stem}.mp4")


class Batch:
    """One run over a list of videos; one bad file never stops the rest.

    Finished videos (entries of `out/scores.json` made with the same settings) are skipped.

    Attributes:
      failures: path -> reason, of the videos that failed so far.
    """

    def __init__(
        self,
        job: Job,
        videos: Sequence[Path],
        out: Path,
        *,
        group: int = 16,
        progress: Callable[[int], Any] = lambda n: None,
    ):
        out.mkdir(parents=True, exist_ok=True)
        self.job, self.out, self.group, self.progress = job, out, group, progress
        self.scores = ScoreFile(out / "scores.json", job.settings())
        self.names = dict(zip(videos, output_names(videos)))
        self.todo = [v for v in videos if self.names[v] not in self.scores.done]
        self.failures: dict[str, str] = {}
        progress(len(videos) - len(self.todo))

    def run(self) -> dict[str, str]:
        """Makes every remaining clip; returns `failures`."""
        with (
            futures.ThreadPoolExecutor(READERS) as readers,
            futures.ThreadPoolExecutor(1) as finisher,
            futures.ThreadPoolExecutor(2) as writers,
        ):
            under_way = collections.deque()
            for group in self._groups(readers):
                under_way.append(finisher.submit(self._finish, self._made(group), writers))
                while len(under_way) > 1:  # at most one group waits beside the device
                    self._collect(under_way.popleft().result())
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
                save = writers.submit(_save_all, clips, self.out, self.names[video])
                saves.append((video, clips, save))
        return saves

    def _collect(self, saves: list[tuple[Path, Sequence[Any], futures.Future]]) -> None:
        for video, clips, save in saves:
            try:
                save.result()
            except ERRORS as error:
                self._fail(video, error)
                continue
            entry = {"video": str(video), **clips[0].scores}
            if len(clips) > 1:
                entry["others"] = [clip.scores for clip in clips[1:]]
            self.scores.add(self.names[video], entry)
            self.progress(1)

    def _fail(self, video: Path, error: Exception) -> None:
        self.failures[str(video)] = str(error)
        self.progress(1)
