"""One request of a page: checked, made, and written as files that a browser plays.

Nothing here knows a web framework. What a visitor is told never holds a path of this machine.
"""

import collections
from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import logging
import math
import os
from pathlib import Path
import re
import shutil
import threading
import time
from typing import Any, NamedTuple

import numpy as np

from foley_jax.inference import clip as clip_lib
from foley_jax.media import audio as audio_io
from foley_jax.media import fades, uploads
from foley_jax.media import video as video_io
from foley_jax.runtime import reasons
from foley_jax.runtime import run as run_lib

SILENT_DB = -60.0  # at and below it the original audio is left out
_log = logging.getLogger(__name__)


class RefusedError(ValueError):
    """What a visitor is told: words without a path of this machine."""


@dataclasses.dataclass(frozen=True)
class Limits(uploads.Limits):
    """What one request may ask for.

    Attributes:
      most_mb, most_s, most_pixels: of an uploaded file, a video, a frame.
      most_takes, most_steps: how often, and in how many solver steps.
      request_s: seconds that a request may take; longer ones are told to ask for less, and end
        after the stage that they are in.
      kept_s: seconds after which its files are removed.
    """

    most_takes: int = 4
    most_steps: int = 100
    request_s: float = 600.0
    kept_s: float = 3600.0


class Mix(NamedTuple):
    """What becomes of a video's own audio.

    Attributes:
      original_db: its level under the new audio; at `SILENT_DB` it is replaced.
      fade_s: the new audio fades in and out over so many seconds.
    """

    original_db: float = SILENT_DB
    fade_s: float = 0.0


class Edit(NamedTuple):
    """What is made anew of the audio that a video has; by default all, and none of it is read.

    Attributes:
      start_s, stop_s: a span, the rest is kept; a stop of 0 is the video's end, and with a start of
        0 there is no span.
      vary: below 1, all of it is varied.
    """

    start_s: float = 0.0
    stop_s: float = 0.0
    vary: float = 1.0

    def options(self, can_edit: bool, mix: Mix) -> dict[str, Any]:
        """Returns the options of the model's call.

        Args:
          can_edit: whether the model keeps audio.
          mix: what is asked for the original audio.
        Raises:
          RefusedError: it cannot, or the original audio would be heard twice.
        """
        has_span = bool(self.start_s or self.stop_s)
        if not has_span and self.vary == 1:
            return {}
        if not can_edit:
            raise RefusedError(
                "this model makes all audio anew; leave the span at 0 and vary at 1, or ask a "
                "model of Diff-Foley or MMAudio"
            )
        if mix.original_db > SILENT_DB:
            raise RefusedError(
                "the original audio is in an edited clip already; leave its level at "
                f"{SILENT_DB:g} dB"
            )
        if not has_span:
            return {"vary": self.vary}
        return {"regenerate": (self.start_s, self.stop_s or math.inf), "vary": self.vary}


class Take(NamedTuple):
    """One of the results: a video or audio file to play, the audio alone, the mel, the scores."""

    played: Path
    wav: Path
    image: Path
    scores: dict[str, float]


def told(error: Exception, *paths: Path) -> RefusedError:
    """What a visitor may know of an error: its words, no path, nothing of what nobody expected."""
    if isinstance(error, RefusedError):
        return error
    words = reasons.of(error)
    if words.startswith("unexpected "):
        _log.error("a request failed: %s", words, exc_info=error)
        return RefusedError("something went wrong here, and was written down; try another video")
    for path in paths:
        words = words.replace(str(path), path.name)
    return RefusedError(re.sub(r"(?<![\w.])/(?:[^\s/:;,'\")]+/)+", "", words))


def check_video(path: str | os.PathLike | None, limits: uploads.Limits) -> Path:
    """Returns an uploaded video that is within the limits; else raises `RefusedError`."""
    with _telling(path):
        return uploads.check_video(path, limits)


def check_audio(path: str | os.PathLike | None, limits: uploads.Limits) -> Path:
    """Returns an uploaded audio file that is within the limits; else raises `RefusedError`."""
    with _telling(path):
        return uploads.check_audio(path, limits)


@contextlib.contextmanager
def _telling(path: str | os.PathLike | None) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise (told(error, Path(path)) if path else told(error)) from error


class Clock:
    """Watches a request's stages: tells of them, ends it when its time is over or nobody waits.

    Args:
      tell: called with the name of every stage as it begins.
      most_s: seconds in all.
      left: set when its visitor has left.
    """

    def __init__(
        self, tell: Callable[[str], Any], most_s: float, left: threading.Event | None = None
    ):
        self.tell, self.most_s, self.began = tell, most_s, time.monotonic()
        self.left = left or threading.Event()

    @contextlib.contextmanager
    def __call__(self, stage: str):
        if self.left.is_set():
            raise RefusedError(f"it was ended before {stage}: its visitor has left")
        if time.monotonic() - self.began > self.most_s:
            raise RefusedError(
                f"it takes longer than the {self.most_s:g} s that a request may; give a shorter "
                "video, fewer steps or fewer takes"
            )
        self.tell(stage)
        yield

    def run(self) -> run_lib.Run:
        """What a model's work is part of."""
        return run_lib.Run(watch=self)


class Visitors:
    """Those whose request is being worked on, by their page's session."""

    def __init__(self):
        self._lock, self._left = threading.Lock(), collections.defaultdict(list)

    @contextlib.contextmanager
    def waiting(self, session: str | None) -> Iterator[threading.Event]:
        """Gives what is set when the visitor leaves meanwhile."""
        left = threading.Event()
        with self._lock:
            self._left[session].append(left)
        try:
            yield left
        finally:
            with self._lock:
                self._left[session].remove(left)
                if not self._left[session]:
                    del self._left[session]

    def leave(self, session: str | None) -> None:
        """Tells the requests of a session that nobody waits for them."""
        with self._lock:
            for left in self._left.get(session, ()):
                left.set()


def write(clips: list[clip_lib.Clip], mix: Mix, folder: Path) -> list[Take]:
    """Writes every clip's mp4 (or wav alone), wav and image into a folder.

    Raises:
      RefusedError: no audio is finite, or a file cannot be written.
    """
    takes = []
    for number, clip in enumerate(clips, 1):
        base = folder / f"take{number}"
        try:
            if clip.has_video:
                clip = dataclasses.replace(clip, audio=mixed(clip, mix))
            played = base.with_suffix(".mp4" if clip.has_video else ".wav")
            for path in {played, base.with_suffix(".wav")}:
                clip.save(path)
            clip.plot(base.with_suffix(".png"))
        except (OSError, ValueError) as error:
            raise told(error, *filter(None, [clip.video]), folder) from error
        scores = {name: round(float(value), 4) for name, value in clip.scores.items()}
        takes.append(Take(played, base.with_suffix(".wav"), base.with_suffix(".png"), scores))
    return takes


def mixed(clip: clip_lib.Clip, mix: Mix) -> np.ndarray:
    """The new audio, faded, over the video's own at its level."""
    audio_L, rate = np.array(clip.audio, np.float32), clip.sample_rate
    fade = min(round(mix.fade_s * rate), len(audio_L) // 2)
    if fade > 0:
        ramp = fades.ramp(fade)
        audio_L[:fade] *= ramp
        audio_L[-fade:] *= ramp[::-1]
    if mix.original_db <= SILENT_DB:
        return audio_L
    try:
        own_L = audio_io.load(clip.video, rate, duration_s=len(audio_L) / rate)
    except video_io.MediaError as error:
        if error.reason != "no_audio":
            raise
        return audio_L  # it was silent
    return audio_L + own_L[: len(audio_L)] * np.float32(10 ** (mix.original_db / 20))


class Folders:
    """Folders of requests under one that is given, removed when they are old.

    Args:
      root: made if it is not there.
      kept_s: seconds that the files of a request stay.
    """

    def __init__(self, root: Path, kept_s: float):
        self.root, self.kept_s = root, kept_s
        self._lock, self._made = threading.Lock(), {}
        root.mkdir(parents=True, exist_ok=True)

    def new(self) -> Path:
        """Returns a fresh folder; it is removed when its time is over, and old ones now."""
        self.sweep()
        folder = self.root / os.urandom(12).hex()
        folder.mkdir()
        with self._lock:
            self._made[folder] = time.monotonic()
        later = threading.Timer(max(0.0, self.kept_s) + 1.0, self.sweep)
        later.daemon = True
        later.start()
        return folder

    def sweep(self) -> None:
        """Removes the folders that are old."""
        with self._lock:
            now = time.monotonic()
            for folder in [f for f, made in self._made.items() if now - made > self.kept_s]:
                shutil.rmtree(folder, ignore_errors=True)
                del self._made[folder]

    def drop(self, folder: Path) -> None:
        """Removes a folder at once."""
        with self._lock:
            self._made.pop(folder, None)
        shutil.rmtree(folder, ignore_errors=True)
