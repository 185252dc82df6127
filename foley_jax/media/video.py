"""Image from any video file: what it is, and its frames at given times.

Axis letters: T frames, H W C image, L audio samples.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import itertools
import pathlib

import av
import numpy as np

from foley_jax.media import container as containers
from foley_jax.media import frames as frames_lib
from foley_jax.media import hdr, muxing, specs, writing

# one door for image: writing and muxing live in their own files
MediaError = containers.MediaError
write_video = writing.write_video
mux = muxing.mux

# Containers round timestamps to as little as 1 ms (Matroska); half of that must not move a frame.
TIME_SLACK_S = 5e-4
STARTS_NEAR_ZERO_S = 0.2
LONGEST_S = 172_800.0  # two days; timestamps behind that are of a broken clock


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """Contents of a file; width and height are as displayed, in square pixels after `rotation`.

    `rotation` is in degrees counter-clockwise, a multiple of 90. Fields of a missing image are 0.
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
      MediaError: "missing", "unreadable", "empty" (a video stream without a frame), or
        "unsupported" (no decoder, or longer than two days: no recording, but a broken clock).
    """
    with containers.open_input(path) as container:
        stream = containers.video_stream(container)
        has_audio = bool(container.streams.audio)
        duration_s = _duration_s(path, container, stream)
        if stream is None:
            return MediaInfo(duration_s, 0.0, 0, 0, 0, False, has_audio)
        first = frames_lib.first_frame(container, stream)
        if first is None:
            raise MediaError("empty", f"{path}: its video stream holds no decodable frame")
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
    image starts later; or with `spec.pick` "nearest" the one nearest in time; for "first_after" see
    `_first_after`), as it is meant to be seen: upright, its pixels as wide as they are shown,
    HDR toned down to BT.709 (with a warning). It is brought to the spec's size as `fitting.fit`
    does. The result ends where the video or `duration_s` ends.

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
    with _opened(path, spec, start_s, duration_s) as (frames, _):
        made = list(frames)
    if not made:
        span = "" if duration_s is None else f" to {start_s + duration_s:.3f} s"
        raise MediaError("empty", f"{path}: no video from {start_s:.3f} s{span}")
    return np.stack(made)


class Stream:
    """The frames of a whole video, decoded anew by everyone who walks through them.

    Yields uint8 [H, W, 3], what `read_frames` gives.

    Attributes:
      nbytes: of all of them, by what the file says; none is held.
    Raises:
      MediaError: while walking, see `read_frames`.
    """

    def __init__(self, path: str | pathlib.Path, spec: specs.VideoSpec, duration_s: float):
        self.path, self.spec = path, spec
        self.nbytes = spec.num_frames(duration_s) * frame_bytes(spec)

    def __iter__(self) -> Iterator[np.ndarray]:
        with _opened(self.path, self.spec, 0.0, None) as (frames, _):
            first = next(frames, None)
            if first is None:
                raise _no_frame(self.path)
            yield first
            yield from frames


def read_whole(
    path: str | pathlib.Path, spec: specs.VideoSpec, *, most_bytes: float = np.inf
) -> tuple[np.ndarray | Stream, float]:
    """`read_frames` of the whole video and its length in seconds, opening the file once.

    Args:
      most_bytes: of frames in memory; of a longer video it is a `Stream`, not yet decoded.
    Raises:
      MediaError: see `read_frames`.
    """
    most = most_bytes / frame_bytes(spec)
    with _opened(path, spec, 0.0, None) as (frames, stated_s):
        held: list[np.ndarray] = []
        if stated_s * spec.fps <= most:
            held = list(itertools.islice(frames, None if most == np.inf else int(most) + 1))
            if not held:
                raise _no_frame(path)
        if held and len(held) <= most:
            # raw streams and some recorders state no length
            return np.stack(held), stated_s or len(held) / spec.fps
        count = len(held)
        held.clear()
        if not stated_s:
            count += sum(1 for _ in frames)
    length_s = stated_s or count / spec.fps
    return Stream(path, spec, length_s), length_s


def frame_bytes(spec: specs.VideoSpec) -> int:
    """Memory of one decoded frame."""
    return 3 * spec.height * spec.width


def _no_frame(path: str | pathlib.Path) -> MediaError:
    return MediaError("empty", f"{path}: its video stream holds no decodable frame")


@contextlib.contextmanager
def _opened(
    path: str | pathlib.Path, spec: specs.VideoSpec, start_s: float, duration_s: float | None
) -> Iterator[tuple[Iterator[np.ndarray], float]]:
    """Frames of a span, perhaps none, and the length that the file states (0 if it does not)."""
    with containers.open_input(path) as container:
        stream = containers.video_stream(container)
        if stream is None:
            raise MediaError("no_video", f"{path}: has no video stream")
        stream.thread_type = "AUTO"
        stated_s = _duration_s(path, container, stream)
        begin_s = start_s + containers.origin_s(container)
        wanted = None if duration_s is None else spec.num_frames(duration_s)
        timed = frames_lib.timed_frames(container, stream, begin_s)
        if spec.pick == "first_after":
            yield _first_after(timed, spec, start_s, duration_s), stated_s
        else:
            yield _sample(timed, spec, begin_s, wanted), stated_s


def _sample(
    timed: Iterator[tuple[float, float, frames_lib.Frame]],
    spec: specs.VideoSpec,
    begin_s: float,
    wanted: int | None,
) -> Iterator[np.ndarray]:
    """Walks through (time, end, image) and yields what is seen at, or nearest to, each time."""
    count = 0
    shown, shown_pixels = None, None
    shown_s = shown_end_s = -np.inf
    limit = np.inf if wanted is None else wanted

    def show_until(end_s: float) -> Iterator[np.ndarray]:
        nonlocal count, shown_pixels
        while count < limit and begin_s + count / spec.fps < end_s - TIME_SLACK_S:
            if shown_pixels is None:
                shown_pixels = shown.fitted(spec)
            count += 1
            yield shown_pixels

    for time_s, end_s, image in timed:
        if shown is not None:
            if time_s <= shown_s:  # times that start again: the first recording counts
                continue
            # nearest: up to the middle between this frame's time and the next one's
            yield from show_until((shown_s + time_s) / 2 if spec.pick == "nearest" else time_s)
        if count >= limit:
            break
        shown, shown_s, shown_pixels = image, time_s, None
        shown_end_s = max(end_s, shown_end_s)
    if shown is not None:
        yield from show_until(shown_end_s)


def _first_after(
    timed: Iterator[tuple[float, float, frames_lib.Frame]],
    spec: specs.VideoSpec,
    begin_s: float,
    duration_s: float | None,
) -> Iterator[np.ndarray]:
    """Walks through (time, end, image) and yields the first one not before each wanted time.

    Wanted times are summed up in float64, so that 25 frames/s are read one frame late from the
    seventh on; a frame exactly at the end counts; time 0 is that of the timestamps.
    Source: MMAudio `read_frames`.
    """
    wanted_s = begin_s
    for time_s, _, image in timed:
        if duration_s is not None and time_s > begin_s + duration_s:
            return
        while time_s >= wanted_s:
            yield image.fitted(spec)
            wanted_s += 1 / spec.fps


def _duration_s(
    path: str | pathlib.Path,
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream | None,
) -> float:
    """Length from the clip's second 0: of the video if it is stated, else of the file; or 0."""
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
    """Where the last packet of the video (or else of the audio) ends; 0 without timestamps."""
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
