"""Decoded frames with their times, upright.

Axis letters: H W C picture.
"""

from collections.abc import Iterator

import av
import av.container
import numpy as np

from foley_jax.media import container as containers


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
        else:  # raw streams carry no times
            time_s = containers.origin_s(container) if time_s is None else time_s + period_s
        length_s = float(frame.duration * frame.time_base) if frame.duration else period_s
        yield time_s, time_s + length_s, frame


def _by_order(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """Times in AVI, which numbers frames in the order of decoding and has no times of display.

    Where frames are stored out of order (B-frames), FFmpeg invents timestamps that jump back and
    forth. A frame comes out of the decoder some packets after its own; that many, as counted at
    the first one, are taken off again.
    """
    period_s = 1 / frame_rate(stream)
    first_dts, delay, time_s = None, None, None
    for packet in containers.packets(container, stream):
        if first_dts is None:
            first_dts = packet.dts
        for frame in containers.frames_of(packet):
            if frame.dts is not None and first_dts is not None:
                delay = frame.dts - first_dts if delay is None else delay
                time_s = float((frame.dts - delay) * frame.time_base)
            else:  # the last ones, which no packet pushes out
                time_s = containers.origin_s(container) if time_s is None else time_s + period_s
            yield time_s, time_s + period_s, frame


def frame_rate(stream: av.video.stream.VideoStream) -> float:
    """Frames per second, as well as the file tells."""
    return float(stream.average_rate or stream.guessed_rate or 25)


def quarter_turns(frame: av.VideoFrame) -> int:
    """Quarter turns counter-clockwise that put a frame upright: phones film rotated."""
    return round(frame.rotation / 90) % 4


def upright(frame: av.VideoFrame) -> np.ndarray:
    """One decoded frame as [H, W, 3] uint8 RGB, as it is meant to be seen."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns(frame)))
