"""Uploaded files, measured before anything decodes them whole.

What a file says of itself is not believed: a header of one second may stand before hours, and
small frames before huge ones. So all packets are read, which costs little, and their key frames
are decoded: frames change their size at none but these.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import os
from pathlib import Path

import av
import av.container
import av.error

from foley_jax.media import container as containers

USUAL_FPS = 30.0  # what the most pixels of a video are counted with


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a file may hold.

    Attributes:
      most_mb: megabytes of an uploaded file.
      most_s: seconds of a video.
      most_pixels: of a frame.
    """

    most_mb: float = 200.0
    most_s: float = 60.0
    most_pixels: int = 4096 * 2304


def check_video(path: str | os.PathLike | None, limits: Limits) -> Path:
    """Returns an uploaded video whose size, length and frames are within the limits.

    Raises:
      ValueError, OSError: there is none, or it is beyond them, or cannot be read.
    """
    if not path:
        raise ValueError("no video; choose or record one first")
    with _opened(Path(path), limits) as container:
        stream = containers.video_stream(container)
        if stream is None:
            raise ValueError("the file has no video stream")
        _check_frame(stream.width, stream.height, limits)
        _check_length((container.duration or 0) / av.time_base, "it", limits)
        frames = _walk(container, stream, limits)
        most = limits.most_pixels * limits.most_s * USUAL_FPS
        if frames * stream.width * stream.height > most:
            raise ValueError(
                f"its {frames} frames of {stream.width}x{stream.height} are too many, at most "
                f"{most:,.0f} pixels in all are taken"
            )
    return Path(path)


def check_audio(path: str | os.PathLike | None, limits: Limits) -> Path:
    """Returns an uploaded audio file whose size and length are within the limits.

    Raises:
      ValueError, OSError: there is none, or it is beyond them, or cannot be read.
    """
    if not path:
        raise ValueError("no audio; choose or record some first")
    with _opened(Path(path), limits) as container:
        if not container.streams.audio:
            raise ValueError("the file has no audio track")
        _check_length((container.duration or 0) / av.time_base, "it", limits)
        _walk(container, container.streams.audio[0], limits)
    return Path(path)


@contextlib.contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[av.container.InputContainer]:
    size_mb = path.stat().st_size / 1e6
    if size_mb > limits.most_mb:
        raise ValueError(f"the file has {size_mb:.1f} MB, at most {limits.most_mb:g} are taken")
    with containers.open_input(path) as container:
        yield container


def _check_length(length_s: float, what: str, limits: Limits) -> None:
    if length_s > limits.most_s:
        raise ValueError(f"{what} lasts {length_s:.1f} s, at most {limits.most_s:g} s are taken")


def _check_frame(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.most_pixels:
        raise ValueError(
            f"its frames are {width}x{height}, at most {limits.most_pixels:,} pixels are taken"
        )


def _walk(container: av.container.InputContainer, stream: av.stream.Stream, limits: Limits) -> int:
    """Reads all packets of a stream; returns how many there are.

    Raises:
      ValueError, OSError: they last longer, or a key frame is larger, than is taken.
    """
    is_video = stream.type == "video"
    if is_video:
        stream.codec_context.skip_frame = "NONKEY"
        # else one is allocated before its size can be looked at
        stream.codec_context.options = {"max_pixels": str(2 * limits.most_pixels)}
    begin_s, count = containers.start_s(container, stream), 0
    for packet in containers.packets(container, stream):
        count += packet.size > 0
        if packet.pts is not None:
            end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            _check_length(end_s - begin_s, "its stream", limits)
        if is_video and (packet.is_keyframe or not packet.size):
            for frame in containers.frames_of(packet):
                _check_frame(frame.width, frame.height, limits)
    return count
