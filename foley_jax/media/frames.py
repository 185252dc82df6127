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
      begin_s: start at the key frame at or before this time; None = at the beginning.
    """
    period_s = 1 / frame_rate(stream)
    origin_s = containers.origin_s(container)
    if begin_s is not None and begin_s > origin_s:
        container.seek(int(begin_s / stream.time_base), stream=stream)
    time_s = None
    for frame in containers.decoded(container, stream):
        if frame.pts is not None:
            time_s = float(frame.pts * frame.time_base)
        else:  # raw streams carry no times
            time_s = origin_s if time_s is None else time_s + period_s
        length_s = float(frame.duration * frame.time_base) if frame.duration else period_s
        yield time_s, time_s + length_s, frame


def frame_rate(stream: av.video.stream.VideoStream) -> float:
    """Frames per second, as well as the file tells."""
    return float(stream.average_rate or stream.guessed_rate or 25)


def quarter_turns(frame: av.VideoFrame) -> int:
    """Quarter turns counter-clockwise that put a frame upright: phones film rotated."""
    return round(frame.rotation / 90) % 4


def upright(frame: av.VideoFrame) -> np.ndarray:
    """One decoded frame as [H, W, 3] uint8 RGB, as it is meant to be seen."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns(frame)))
