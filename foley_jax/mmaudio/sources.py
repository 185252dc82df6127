"""Videos as they come in, and text without one."""

from collections.abc import Iterable, Iterator
import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foley_jax.media import editing, specs
from foley_jax.media import video as video_io
from foley_jax.mmaudio import rates

HELD_BYTES = 64 << 20  # of a video's decoded frames; those of a longer one are never all in memory


class Source(NamedTuple):
    """A clip to make audio for.

    Attributes:
      path: where the video came from; without one, the name of the clip.
      clip_frames: uint8 [T, H, W, 3] as CLIP sees them, or what gives them one by one; None without
        a video.
      sync_frames: the same as Synchformer sees them.
      duration_s: seconds of audio.
      kept: audio of which only a span is made anew, if any.
      varied: audio that `settings.vary` begins with, if any.
    """

    path: Path
    clip_frames: Iterable[np.ndarray] | None
    sync_frames: Iterable[np.ndarray] | None
    duration_s: float
    kept: editing.Kept | None = None
    varied: editing.Kept | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all its frames, those that are not in memory included."""
        return sum(getattr(x, "nbytes", 0) for x in (self.clip_frames, self.sync_frames))


def of_text(name: str, duration_s: float | None) -> Source:
    """Returns a clip without a video."""
    return Source(Path(name), None, None, duration_s or rates.WINDOW_S)


def read(
    path: Path,
    clip_video: specs.VideoSpec,
    sync_video: specs.VideoSpec,
    duration_s: float | None,
) -> Source:
    """Decodes a video for both networks, or finds out how to where it is long.

    Args:
      duration_s: at most so much of it, from its beginning; None is all.
    Raises:
      foley_jax.media.video.MediaError: the file has no readable video.
    """
    clip, length_s = video_io.read_whole(path, clip_video, most_bytes=HELD_BYTES)
    sync, _ = video_io.read_whole(path, sync_video, most_bytes=HELD_BYTES)
    if duration_s is not None and duration_s < length_s:
        length_s = duration_s
        clip, sync = _begin(clip, clip_video, length_s), _begin(sync, sync_video, length_s)
    return Source(path, clip, sync, length_s)


class _Begin:
    """The first frames of those that are decoded anew by everyone who walks through them."""

    def __init__(self, frames: video_io.Stream, count: int, nbytes: int):
        self.frames, self.count, self.nbytes = frames, count, nbytes

    def __iter__(self) -> Iterator[np.ndarray]:
        for _, frame in zip(range(self.count), self.frames):
            yield frame


def _begin(frames, spec: specs.VideoSpec, length_s: float) -> Iterable[np.ndarray]:
    count = max(1, math.ceil(length_s * spec.fps - 1e-6))
    if isinstance(frames, np.ndarray):
        return frames[:count]
    return _Begin(frames, count, count * video_io.frame_bytes(spec))


def read_official(
    path: Path, clip_video: specs.VideoSpec, sync_video: specs.VideoSpec, duration_s: float | None
) -> Source:
    """Decodes the beginning of a video as the official demo does, late frames and all.

    Args:
      duration_s: at most so much of it; None is 8 s. What comes out is shorter where a frame is
        missing.
    Raises:
      foley_jax.media.video.MediaError: as `read`.
      ValueError: it is too short for one segment.
    """
    duration_s = duration_s or rates.WINDOW_S
    clip, sync = (
        video_io.read_frames(path, spec, duration_s=duration_s)
        for spec in (
            dataclasses.replace(video, pick="first_after") for video in (clip_video, sync_video)
        )
    )
    duration_s = min(duration_s, len(clip) / rates.CLIP_FPS, len(sync) / rates.SYNC_FPS)
    return Source(
        path,
        clip[: int(rates.CLIP_FPS * duration_s)],
        sync[: int(rates.SYNC_FPS * duration_s)],
        duration_s,
    )
