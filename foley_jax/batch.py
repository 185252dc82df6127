"""Sound for a folder of videos: resumable, decoding and saving in threads beside the device."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
import json
import os
from pathlib import Path
from typing import Any, Protocol

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


class Job(Protocol):
    """How one batch turns videos into clips; see `foley_jax.sample` for the makers."""

    def read(self, video: Path) -> Any:
        """Decodes one video (runs in a thread)."""

    def make(self, sources: Sequence[Any]) -> Sequence[Any]:
        """Makes one clip per source (runs on the device); clips have save, plot, scores."""

    def settings(self) -> dict:
        """What the result depends on, JSON-able; another value makes every video again."""


def find_videos(inputs: Iterable[str | os.PathLike]) -> list[Path]:
    """Files as given, folders searched through; sorted inside each folder."""
    found = []
    for item in map(Path, inputs):
        if item.is_dir():
            inside = (p for p in item.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
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


def _prefetch(pool: futures.Executor, fn, items: Sequence, ahead: int) -> Iterator:
    """Yields (item, future) in order, keeping `ahead` calls under way."""
    queue: list[tuple[object, futures.Future]] = []
    for item in items:
        queue.append((item, pool.submit(fn, item)))
        if len(queue) > ahead:
            yield queue.pop(0)
    yield from queue


def _save_all(clip: Any, out: Path, name: str) -> None:
    clip.save(out / f"{name}.wav")
    clip.plot(out / f"{name}.png")
    clip.save(out / f"{name}.mp4")  # last: its presence says that the clip is complete


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
        with futures.ThreadPoolExecutor(2) as readers, futures.ThreadPoolExecutor(2) as writers:
            ready: list[tuple[Path, Any]] = []
            ahead = 2 * self.group
            for video, pending in _prefetch(readers, self.job.read, self.todo, ahead):
                try:
                    ready.append((video, pending.result()))
                except (OSError, ValueError) as error:
                    self._fail(video, error)
                if len(ready) == self.group:
                    self._make(ready, writers)
                    ready = []
            if ready:
                self._make(ready, writers)
        return self.failures

    def _make(self, ready: list[tuple[Path, Any]], writers: futures.Executor) -> None:
        clips = self.job.make([source for _, source in ready])
        saves = []
        for (video, _), clip in zip(ready, clips):
            saves.append(writers.submit(_save_all, clip, self.out, self.names[video]))
        for (video, _), clip, save in zip(ready, clips, saves):
            try:
                save.result()
            except (OSError, ValueError) as error:
                self._fail(video, error)
                continue
            self.scores.add(self.names[video], {"video": str(video), **clip.scores})
            self.progress(1)

    def _fail(self, video: Path, error: Exception) -> None:
        self.failures[str(video)] = str(error)
        self.progress(1)
