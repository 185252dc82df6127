"""Picture from any video file: what it is, and its frames at given times.

Axis letters: T frames, H W C picture, L audio samples.
"""

from collections.abc import Iterator
import dataclasses
import pathlib

import av
import numpy as np

from foley_jax.media import container as containers
from foley_jax.media import frames as frames_lib
from foley_jax.media import hdr, muxing, specs, writing

# one door for picture: writing and muxing live in their own files
MediaError = containers.MediaError
write_video = writing.write_video
mux = muxing.mux

# Containers round timestamps to as little as 1 ms (Matroska); half of that must not move a frame.
TIME_SLACK_S = 5e-4
STARTS_NEAR_ZERO_S = 0.2
LONGEST_S = 172_800.0  # two days; timestamps behind that are of a broken clock


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """What a file holds; width and height are as displayed, in square pixels after `rotation`.

    `rotation` is in degrees counter-clockwise, a multiple of 90. Fields of a missing picture are 0.
    `hdr` names what is toned down to BT.709 when it is read ("PQ", "HLG"), or is empty.
    """

    duration_s: float
    fps: float
    width: int
    height: int
    rotation: int
    has_video: bool
    has_audio: bool
    hdr: str = ""


def probe(path: str | pathlib.Path) -> MediaInfo:
    """Reads what a file says about itself (and its first frame, for the rotation).

    Raises:
      MediaError: "missing", "unreadable", "empty" (a picture stream without a frame), or
        "unsupported" (no decoder, or longer than two days: no recording, but a broken clock).
    """
    with containers.open_input(path) as container:
        stream = containers.video_stream(container)
        has_audio = bool(container.streams.audio)
        duration_s = _duration_s(path, container, stream)
        if stream is None:
            return MediaInfo(duration_s, 0.0, 0, 0, 0, False, has_audio)
        first = frames_lib.first_picture(container, stream)
        if first is None:
            raise MediaError("empty", f"{path}: its picture stream holds no decodable frame")
        height, width = first.shown_size
        return MediaInfo(
            duration_s,
            frames_lib.frame_rate(stream),
            width,
            height,
            90 * first.geometry.turns,
            True,
            has_audio,
            hdr.NAMES.get(first.transfer, ""),
        )


def read_frames(
    path: str | pathlib.Path,
    spec: specs.VideoSpec,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> np.ndarray:
    """Samples a video's frames at a fixed rate and size.

    Frame i is the last source frame shown at or before start_s + i / fps (the first one if the
    picture starts later), as it is meant to be seen: upright, its pixels as wide as they are shown,
    HDR toned down to BT.709 (with a warning). It is brought to the spec's size as `fitting.fit`
    does. The result ends where the picture or `duration_s` ends.

    Args:
      path: any video file.
      spec: wanted rate and size.
      start_s: where to begin, seconds on the container's clock.
      duration_s: how much to read; None = to the end.
    Returns:
      [T, H, W, 3] uint8; T may be smaller than asked if the file ends early.
    Raises:
      MediaError: "missing", "unreadable", "no_video", or "empty" (no frame in that span).
    """
    frames, _ = _read(path, spec, start_s, duration_s)
    if not frames:
        span = "" if duration_s is None else f" to {start_s + duration_s:.3f} s"
        raise MediaError("empty", f"{path}: no picture from {start_s:.3f} s{span}")
    return np.stack(frames)


def read_whole(path: str | pathlib.Path, spec: specs.VideoSpec) -> tuple[np.ndarray, float]:
    """`read_frames` of the whole video and its length in seconds, opening the file once.

    Raises:
      MediaError: see `read_frames`.
    """
    frames, stated_s = _read(path, spec, 0.0, None)
    if not frames:
        raise MediaError("empty", f"{path}: its picture stream holds no decodable frame")
    # raw streams and some recorders state no length
    return np.stack(frames), stated_s or len(frames) / spec.fps


def _read(
    path: str | pathlib.Path, spec: specs.VideoSpec, start_s: float, duration_s: float | None
) -> tuple[list[np.ndarray], float]:
    """Frames of a span, perhaps none, and the length that the file states (0 if it does not)."""
    with containers.open_input(path) as container:
        stream = containers.video_stream(container)
        if stream is None:
            raise MediaError("no_video", f"{path}: has no picture stream")
        stream.thread_type = "AUTO"
        stated_s = _duration_s(path, container, stream)
        begin_s = start_s + containers.origin_s(container)
        wanted = None if duration_s is None else spec.num_frames(duration_s)
        timed = frames_lib.timed_frames(container, stream, begin_s)
        return _sample(timed, spec, begin_s, wanted), stated_s


def _sample(
    timed: Iterator[tuple[float, float, frames_lib.Picture]],
    spec: specs.VideoSpec,
    begin_s: float,
    wanted: int | None,
) -> list[np.ndarray]:
    """Walks through (time, end, picture) and keeps what is on screen at each wanted time."""
    out: list[np.ndarray] = []
    shown, shown_pixels = None, None
    shown_s = shown_end_s = -np.inf
    limit = np.inf if wanted is None else wanted

    def show_until(end_s: float) -> None:
        nonlocal shown_pixels
        while len(out) < limit and begin_s + len(out) / spec.fps < end_s - TIME_SLACK_S:
            if shown_pixels is None:
                shown_pixels = shown.fitted(spec)
            out.append(shown_pixels)

    for time_s, end_s, picture in timed:
        if shown is not None:
            if time_s <= shown_s:  # times that start again: the first recording counts
                continue
            show_until(time_s)
        if len(out) >= limit:
            break
        shown, shown_s, shown_pixels = picture, time_s, None
        shown_end_s = max(end_s, shown_end_s)
    if shown is not None:
        show_until(shown_end_s)
    return out


def _duration_s(
    path: str | pathlib.Path,
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream | None,
) -> float:
    """Length from the clip's second 0: of the picture if it is stated, else of the file; or 0."""
    begin_s = containers.origin_s(container)
    if stream is not None and stream.duration:
        late_s = containers.start_s(container, stream) - begin_s
        length_s = late_s + float(stream.duration * stream.time_base)
    elif container.duration and abs(begin_s) < STARTS_NEAR_ZERO_S:
        length_s = container.duration / av.time_base
    else:  # live recordings state none; Matroska states the last timestamp
        length_s = _measured_s(path, begin_s)
    if length_s > LONGEST_S:
        raise MediaError(
            "unsupported",
            f"{path}: claims to last {length_s:.0f} s, wanted at most {LONGEST_S:.0f}",
        )
    return length_s


def _measured_s(path: str | pathlib.Path, begin_s: float) -> float:
    """Where the last packet of the picture (or else of the sound) ends; 0 without timestamps."""
    end_s = begin_s
    with containers.open_input(path) as container:
        stream = containers.video_stream(container) or next(iter(container.streams), None)
        if stream is None:  # a header alone
            return 0.0
        for packet in containers.packets(container, stream):
            ticks = packet.dts if packet.pts is None else packet.pts
            if ticks is not None:
                end_s = max(end_s, float((ticks + (packet.duration or 0)) * packet.time_base))
    return end_s - begin_s
