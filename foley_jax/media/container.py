"""Opening a media file, its time zero, and the one error every reader raises."""

from collections.abc import Iterator
from contextlib import contextmanager
import pathlib

import av
import av.container
import av.error

# Names of files that are taken for media where a folder is searched, the usual ones first
SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus")
VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".flv", ".wmv", ".3gp", ".ogv"),
)


class MediaError(ValueError):
    """A file that cannot give what was asked of it.

    Attributes:
      reason: one word for logs: "missing", "unreadable", "no_audio", "no_video", "empty",
        "unsupported".
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):  # crosses process boundaries with its reason
        return type(self), (self.reason, str(self))


@contextmanager
def open_input(path: str | pathlib.Path) -> Iterator[av.container.InputContainer]:
    """Opens a file for reading.

    Raises:
      MediaError: "missing" or "unreadable".
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise MediaError("missing", f"{path}: no such file")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, ValueError) as error:
        # a truncated mp4 whose index (moov) was to follow at the end lands here too
        raise MediaError(
            "unreadable", f"{path}: not a readable media file, or cut off ({error})"
        ) from error
    with container:
        yield container


def origin_s(container: av.container.InputContainer) -> float:
    """Timestamp that is second 0 of the clip, as ffmpeg's command line counts it.

    Usually 0; about 1.4 in MPEG-TS, slightly negative where a codec's priming is not skipped.
    """
    return (container.start_time or 0) / av.time_base


def decoded(
    container: av.container.InputContainer, stream: av.stream.Stream
) -> Iterator[av.frame.Frame]:
    """Decoded frames of a stream; damaged packets are passed over.

    A cut-off file simply ends early: callers see how far it got from the frames' times.
    """
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        try:
            yield from packet.decode()
        except av.error.EOFError:
            return
        except av.error.InvalidDataError:
            continue


def video_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream | None:
    """The picture stream, or None; cover art does not count as picture."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    return None
