"""Opening a media file of any name, its time zero, and the one error every reader raises."""

from collections.abc import Callable, Iterator
import contextlib
import os
import pathlib
from typing import TypeVar
import unicodedata

import av
import av.container
import av.error

Timed = TypeVar("Timed", bound=tuple)
# Where seeking came too late, begin this much earlier: beyond usual distances of key frames
SEEK_BACK_S = (2.0, 15.0)


# What a file says of itself in another encoding than UTF-8 is read by nobody: it costs nothing
TAGS = {"metadata_errors": "replace"}
# A file's name is never a pattern of numbers, and its content never sends FFmpeg elsewhere
LITERAL = {"pattern_type": "none", "protocol_whitelist": "file"}


class MediaError(ValueError):
    """A file that cannot give, or hold, what was asked of it; its message is one printable line.

    Attributes:
      reason: one word for logs: "missing", "unreadable", "no_audio", "no_video", "empty",
        "unsupported", "unwritable"; `data_prep` has more.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(printable(message))
        self.reason = reason

    def __reduce__(self):  # crosses process boundaries with its reason
        return type(self), (self.reason, str(self))


class MediaWarning(UserWarning):
    """A file was read or written otherwise than as it is.

    Attributes:
      what: was done, without the file's name.
    """

    def __init__(self, path: str | os.PathLike[str], what: str):
        super().__init__(printable(f"{os.fspath(path)}: {what}"))
        self.what = what


def printable(text: str | os.PathLike[str]) -> str:
    """A name, or a text with names in it, on one line: bytes that are no UTF-8 as `\\xe9`."""
    return "".join(map(_printable, os.fspath(text)))


def _printable(letter: str) -> str:
    kind = unicodedata.category(letter)
    if kind == "Cs" and 0xDC80 <= ord(letter) <= 0xDCFF:  # a byte of a name that is no UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode() if kind in ("Cc", "Cs", "Zl", "Zp") else letter


def _literal(path: str | os.PathLike[str]) -> str:
    """A name that FFmpeg takes for a file: what begins with / is no protocol, option or device.

    ".." stays as it is, because what it means depends on links.
    """
    return str(pathlib.Path(path).absolute())


@contextlib.contextmanager
def open_input(path: str | os.PathLike[str]) -> Iterator[av.container.InputContainer]:
    """Opens a file of any name for reading.

    Raises:
      MediaError: "missing" or "unreadable".
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise MediaError("missing", f"{path}: no such file, or a broken link or pipe")
    try:
        container = av.open(_literal(path), container_options=LITERAL, **TAGS)
    except (av.error.FFmpegError, ValueError) as error:
        # a truncated mp4 whose index (moov) was to follow at the end lands here too
        raise MediaError(
            "unreadable", f"{path}: not a readable media file, or cut off ({error})"
        ) from error
    with container:
        yield container


@contextlib.contextmanager
def open_output(
    path: str | os.PathLike[str], format: str
) -> Iterator[av.container.OutputContainer]:
    """Opens a file of any name for writing.

    Args:
      path: of the file.
      format: FFmpeg's name of the container, which the file's name does not decide.
    Raises:
      MediaError: "unwritable", whatever FFmpeg says against the file or what goes into it; what
        else the block raises passes through.
    """
    try:
        container = av.open(_literal(path), "w", format=format, **TAGS)
        try:
            yield container
        except BaseException:
            # what is lacking at its end matters no more, and must not hide why
            with contextlib.suppress(av.error.FFmpegError, ValueError):
                container.close()
            raise
        container.close()
    except av.error.FFmpegError as error:
        raise MediaError("unwritable", f"{path}: cannot be written ({error})") from error


def origin_s(container: av.container.InputContainer) -> float:
    """Timestamp that is second 0 of the clip, as ffmpeg's command line counts it.

    Usually 0; about 1.4 in MPEG-TS, slightly negative where a codec's priming is not skipped.
    """
    return (container.start_time or 0) / av.time_base


def packets(
    container: av.container.InputContainer, stream: av.stream.Stream
) -> Iterator[av.Packet]:
    """Packets of a stream, the empty one that flushes its decoder last.

    A cut-off file simply ends early: callers see how far it got from the frames' times.
    """
    demuxed = container.demux(stream)
    while True:
        try:
            packet = next(demuxed)
        except (StopIteration, av.error.FFmpegError):
            return
        yield packet


def frames_of(packet: av.Packet) -> Iterator[av.frame.Frame]:
    """The frames that a packet completes; none if it is damaged.

    Raises:
      MediaError: "unsupported" if there is no decoder for it.
    """
    context = packet.stream.codec_context
    if context is None:
        raise MediaError("unsupported", f"no decoder for its {packet.stream.type}")
    try:
        yield from packet.decode()
    except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError) as error:
        raise MediaError(
            "unsupported", f"no decoder for its {packet.stream.type}, {context.name}: {error}"
        ) from error
    except av.error.FFmpegError:  # mostly InvalidDataError, but decoders say all sorts of things
        return


def decoded(
    container: av.container.InputContainer, stream: av.stream.Stream
) -> Iterator[av.frame.Frame]:
    """Decoded frames of a stream; damaged packets are passed over."""
    for packet in packets(container, stream):
        yield from frames_of(packet)


def start_s(container: av.container.InputContainer, stream: av.stream.Stream) -> float:
    """Timestamp of a stream's beginning; that of the file if it states none."""
    if stream.start_time is None:
        return origin_s(container)
    return float(stream.start_time * stream.time_base)


def from_time(
    container: av.container.InputContainer,
    stream: av.stream.Stream,
    begin_s: float,
    read: Callable[[av.container.InputContainer, av.stream.Stream], Iterator[Timed]],
    *,
    run_up_s: float = 0.0,
) -> Iterator[Timed]:
    """Reads a stream from a timestamp on, without reading all that lies before it.

    Some containers are entered anywhere (MPEG-TS: behind the last key frame, so that decoding
    begins after the wanted time), and some cannot be entered at all. What comes too late is
    sought again from farther back, at last from the beginning. MPEG program streams are always read
    from there: entered in the middle, FFmpeg may give a video the time of the one before.

    Args:
      container, stream: an open file, at its beginning.
      begin_s: what is shown or sounds at this timestamp must be among what comes.
      read: reads on from where a container stands; yields tuples whose first entry is a time in
        seconds, or None.
      run_up_s: begin so much earlier.
    """
    moved = False
    for back_s in () if container.format.name == "mpeg" else (0.0, *SEEK_BACK_S):
        target_s = begin_s - run_up_s - back_s
        if target_s <= start_s(container, stream):
            break
        moved = True
        try:
            container.seek(int(target_s / stream.time_base), stream=stream)
        except av.error.FFmpegError:
            break
        timed = read(container, stream)
        first = next(timed, None)
        if first is not None and first[0] is not None and first[0] <= begin_s:
            yield first
            yield from timed
            return
    if not moved:
        yield from read(container, stream)
        return
    with open_input(container.name) as again:  # rewinding is a seek, too
        yield from read(again, again.streams[stream.index])


def video_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream | None:
    """The video stream, or None; cover art does not count as image."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    return None
