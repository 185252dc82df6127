"""Decoded frames with their times, upright.

Axis letters: H W C picture.
"""

from collections.abc import Iterator

import av
import av.container
import numpy as np

from foley_jax.media import container as containers

MOST_REORDERED = 16  # frames, in H.264 and H.265


def timed_frames(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    begin_s: float | None = None,
) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """Yields (time, end, frame) in seconds in display order.

    Args:
      container, stream: an open file and its picture.
      begin_s: start at the key frame at or before this timestamp; None = at the beginning.
    """
    read = _by_order if container.format.name == "avi" else _by_timestamp
    if begin_s is None:
        return read(container, stream)
    return containers.from_time(container, stream, begin_s, read)


def _by_timestamp(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Iterator[tuple[float, float, av.VideoFrame]]:
    period_s = 1 / frame_rate(stream)
    time_s = None
    for frame in containers.decoded(container, stream):
        if frame.pts is not None:
            time_s = float(frame.pts * frame.time_base)
        elif time_s is None:
            time_s = _untimed_start_s(container.name, stream.index, period_s)
        else:  # raw streams carry no times
            time_s += period_s
        length_s = float(frame.duration * frame.time_base) if frame.duration else period_s
        yield time_s, time_s + length_s, frame


def _untimed_start_s(path: str, index: int, period_s: float) -> float:
    """When a picture begins whose first frames have no time: counted back from those that have."""
    with containers.open_input(path) as container:
        origin_s = containers.origin_s(container)
        stamps = [p.pts for p in containers.packets(container, container.streams[index]) if p.size]
        tick_s = float(container.streams[index].time_base)
    timed = [pts for pts in stamps if pts is not None]
    if not timed:
        return origin_s
    first = stamps.index(timed[0])
    # packets come in the order of decoding: a few untimed ones lie behind the first timed one
    untimed = stamps[: first + MOST_REORDERED].count(None)
    return min(timed) * tick_s - untimed * period_s


def _by_order(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """Times in AVI, which numbers frames in the order of decoding and has no times of display.

    Where frames are stored out of order (B-frames), FFmpeg invents timestamps that jump back and
    forth. A frame leaves the decoder with the number of the packet that pushes it out, which is
    a few behind its own.
    """
    period_s = 1 / frame_rate(stream)
    delay, time_s = _decoder_delay(container.name, stream.index), None
    for frame in containers.decoded(container, stream):
        if frame.dts is not None:
            time_s = float((frame.dts - delay) * frame.time_base)
        else:  # the last ones, which no packet pushes out
            time_s = containers.origin_s(container) if time_s is None else time_s + period_s
        yield time_s, time_s + period_s, frame


def _decoder_delay(path: str, index: int) -> int:
    """How many packets after its own a frame leaves the decoder, seen at a file's first frame."""
    with containers.open_input(path) as container:
        stream = container.streams[index]
        first_dts = None
        for packet in containers.packets(container, stream):
            first_dts = packet.dts if first_dts is None else first_dts
            for frame in containers.frames_of(packet):
                return 0 if None in (frame.dts, first_dts) else frame.dts - first_dts
    return 0


def frame_rate(stream: av.video.stream.VideoStream) -> float:
    """Frames per second, as well as the file tells."""
    return float(stream.average_rate or stream.guessed_rate or 25)


def quarter_turns(frame: av.VideoFrame) -> int:
    """Quarter turns counter-clockwise that put a frame upright: phones film rotated."""
    return round(frame.rotation / 90) % 4


def upright(frame: av.VideoFrame) -> np.ndarray:
    """One decoded frame as [H, W, 3] uint8 RGB, as it is meant to be seen."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns(frame)))
