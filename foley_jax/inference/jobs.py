"""A folder of files through a model: resumable, reading and saving in threads beside the device."""

import collections
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from foley_jax.inference import score_file
from foley_jax.media import audio as audio_io
from foley_jax.media import files, level, spool, writing
from foley_jax.runtime import outputs, reasons

READERS = 2  # decoding threads
HELD_BYTES = 1 << 30  # decoded video that may wait; a 10-minute one at 4 fps is 0.36 GB


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
        """Returns what the result depends on, JSON-able; another value makes every video again."""


def find_inputs(
    inputs: Sequence[str | os.PathLike],
    out: str | os.PathLike | None,
    suffixes: Sequence[str] = files.VIDEO_SUFFIXES,
    *,
    tell: bool = True,
) -> list[Path]:
    """The files of a command line that writes into `out`, which is not searched; `files.find`.

    Args:
      inputs: files, and folders to search.
      out: the output folder.
      suffixes: of the wanted files in folders.
      tell: whether to say on stderr what was passed over.
    Raises:
      FileNotFoundError: none is there.
      ValueError: `out` itself is to be searched.
    """
    found = files.find(inputs, suffixes, leave_out=() if out is None else [out])
    if tell:
        found.tell()
    if not found.paths:
        kinds = "video" if set(suffixes) == set(files.VIDEO_SUFFIXES) else "video or audio"
        where = ", ".join(map(str, inputs)) or "no input"
        raise FileNotFoundError(f"no {kinds} files found in {where}")
    return found.paths


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
    save_video: Callable[[Path, np.ndarray], None],
) -> None:
    """Writes a clip's audio as `.wav`, or calls `save_video` for a video file.

    Args:
      audio: float32 [samples] in about [-1, 1]; of all files of a louder clip the level is lowered
        by one gain, with a warning.
      name: of the clip, for messages.
      save_video: called with a path and the audio to write.
    Raises:
      ValueError: the suffix is neither `.wav` nor one of `writing.SUFFIXES` (in any case), or the
        audio is not finite.
    """
    path = Path(path)
    if not all(np.isfinite(piece).all() for piece in spool.pieces(audio)):
        raise ValueError(
            f"the audio made for {name} is not finite; check the model's training, or use "
            "--dtype=float32"
        )
    is_audio = path.suffix.lower() == ".wav"
    if not is_audio and path.suffix.lower() not in writing.SUFFIXES:
        kinds = ", ".join(writing.SUFFIXES)
        raise ValueError(f"cannot save a clip as {path.suffix!r}; use .wav or {kinds}")
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = level.written(name, audio)
    if is_audio:
        audio_io.write_wav(path, audio, sample_rate_hz)
    else:
        save_video(path, audio)


class OutputStore(Protocol):
    """Where clips go, and what is there already."""

    def names(self, videos: Sequence[Path]) -> list[str]:
        """Returns what the clips of each video are called; see `names.output_names`."""

    def has(self, name: str) -> bool:
        """Whether a video needs nothing any more."""

    def save(self, clips: Sequence[Any], name: str) -> None:
        """Writes what `Job.finish` gave for a video (runs in a thread).

        If that fails, `outputs.PartlySavedError` names those to be remembered as written.
        """

    def add(self, name: str, video: Path, clips: Sequence[Any]) -> None:
        """Remembers that they are written."""

    def check(self) -> None:
        """Raises `outputs.OutputError` where nothing can be written; asked if a clip was not."""

    def close(self) -> None:
        """The batch is over, or broken off."""


class Folder:
    """`OutputStore` of one folder: audio, video with audio, and plot of each clip, best first."""

    def __init__(self, out: Path, settings: dict):
        outputs.check_writable(out)
        self.out, self.scores = out, score_file.ScoreFile(out, settings)

    def names(self, videos: Sequence[Path]) -> list[str]:
        return score_file.names_beside([self.scores], videos)

    def has(self, name: str) -> bool:
        return name in self.scores.done

    def save(self, clips: Sequence[Any], name: str) -> None:
        why: Exception | None = None
        for rank, clip in reversed(list(enumerate(clips, 1))):
            stem = name if rank == 1 else f"{name}.best{rank}"
            try:
                clip.save(self.out / f"{stem}.wav")
                clip.plot(self.out / f"{stem}.png")
                if getattr(clip, "has_video", True):
                    clip.save(self.out / f"{stem}.mp4")
            except Exception as error:  # the others are still written
                why = error
        if why is not None:
            raise why

    def add(self, name: str, video: Path, clips: Sequence[Any]) -> None:
        entry = {"video": str(video), **clips[0].scores}
        if len(clips) > 1:
            entry["others"] = [clip.scores for clip in clips[1:]]
        self.scores.add(name, entry)

    def check(self) -> None:
        outputs.check_writable(self.out)

    def close(self) -> None:
        self.scores.merge()


Group = list[tuple[Path, Any]]  # videos and what they were read into


class Finished(NamedTuple):
    """Clips that are being saved, (video, clips, saving) each; or a group to make one by one."""

    saves: list[tuple[Path, Sequence[Any], futures.Future]]
    failed: Group = []
    error: Exception | None = None


class Batch:
    """One run over a list of videos; one bad file never stops the rest, whatever it raises.

    What the shelf has is skipped.

    Attributes:
      failures: path -> reason, of the videos that failed so far.
    """

    def __init__(
        self,
        job: Job,
        videos: Sequence[Path],
        store: OutputStore,
        *,
        names: Sequence[str] | None = None,
        group: int = 16,
        progress: Callable[[int], Any] = lambda n: None,
        when_warm: Callable[[], Any] | None = None,
    ):
        """Finds what there is to do.

        Args:
          names: of the clips of each video; by default the shelf's.
          group: videos made together.
          progress: called with a number of videos that are done or have failed.
          when_warm: called once, after the first group; the others then wait for that group.
        """
        self.job, self.store, self.group, self.progress = job, store, group, progress
        self.when_warm = when_warm
        self.names = dict(zip(videos, names or store.names(videos), strict=True))
        self.todo = [v for v in videos if not store.has(self.names[v])]
        self.failures: dict[str, str] = {}
        progress(len(videos) - len(self.todo))

    def run(self) -> dict[str, str]:
        """Makes every remaining clip; returns `failures`.

        Raises:
          outputs.OutputError: nothing can be written any more.
        """
        with (
            outputs.closing(self.store),
            futures.ThreadPoolExecutor(READERS) as readers,
            futures.ThreadPoolExecutor(1) as finisher,
            futures.ThreadPoolExecutor(2) as writers,
        ):
            under_way = collections.deque()
            for group in self._groups(readers):
                under_way.append(finisher.submit(self._finish, self._made(group), writers))
                waiting = 0 if self.when_warm else 1  # at most one group beside the device
                while len(under_way) > waiting:
                    self._collect(under_way.popleft().result(), writers)
                if self.when_warm:
                    self.when_warm()
                    self.when_warm = None
            for pending in under_way:
                self._collect(pending.result(), writers)
        return self.failures

    def _groups(self, readers: futures.Executor) -> Iterator[Group]:
        """Decoded videos in groups of `group`, or fewer where they are long."""
        ready: Group = []
        for video, pending in _prefetch(readers, self.job.read, self.todo, 2 * self.group):
            try:
                ready.append((video, pending.result()))
            except Exception as error:  # whatever a decoder may say
                self._fail(video, error)
            held = sum(nbytes(source) for _, source in ready)
            if len(ready) == self.group or held >= HELD_BYTES:
                yield ready
                ready = []
        if ready:
            yield ready

    def _made(self, group: Group) -> list[tuple[Group, Any]]:
        """(group, what `make` gave) of a group; one by one if the group as a whole fails."""
        try:
            return [(group, self.job.make([source for _, source in group]))]
        except Exception as error:  # whatever a device may say
            if len(group) == 1:
                self._fail(group[0][0], error)
                return []
        return [made for one in group for made in self._made([one])]

    def _finish(self, parts: list[tuple[Group, Any]], writers: futures.Executor) -> list[Finished]:
        """Starts saving everything that can be finished."""
        return [self._finish_group(group, made, writers) for group, made in parts]

    def _finish_group(self, group: Group, made: Any, writers: futures.Executor) -> Finished:
        try:
            every = self.job.finish(made)
        except Exception as error:
            return Finished([], group, error)
        saves = []
        for (video, _), clips in zip(group, every, strict=True):
            saves.append((video, clips, writers.submit(self.store.save, clips, self.names[video])))
        return Finished(saves)

    def _collect(self, finished: list[Finished], writers: futures.Executor) -> None:
        """Waits for saving; makes the videos of a group that could not be finished one by one."""
        for saves, failed, error in finished:
            for save in saves:
                self._note(*save)
            if len(failed) == 1:
                self._fail(failed[0][0], error)
                continue
            for one in failed:
                self._collect(self._finish(self._made([one]), writers), writers)

    def _note(self, video: Path, clips: Sequence[Any], saving: futures.Future) -> None:
        """Remembers a video's saved clips, or why there are none."""
        why: Exception | None = None
        try:
            saving.result()
        except outputs.PartlySavedError as error:
            clips, why = error.saved, error
        except Exception as error:
            clips, why = [], error
        try:
            if clips:
                self.store.add(self.names[video], video, clips)
        except OSError as error:
            why = error
        if why is None:
            self.progress(1)
            return
        self.store.check()  # or all the others would fail, too
        self._fail(video, why)

    def _fail(self, video: Path, error: Exception) -> None:
        self.failures[str(video)] = reasons.of(error)
        self.progress(1)
