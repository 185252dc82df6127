"""Frames of a video as ffmpeg's `fps` filter gives them, at a size of the shorter side.

For networks whose published figures were made with it: frame k at rate r is the last input frame
whose r * time rounds to k, so at 0.5 frames/s not 0, 2, 4 s but 0.96, 2.96, 4.96 s of a video of
25 frames/s. `video.read_frames` shows what is on screen at k / r.
T frames, H W C image.
"""

from collections.abc import Iterator
import math
from pathlib import Path

import numpy as np
from PIL import Image

from foley_jax.media import container as containers
from foley_jax.media import frames as frames_lib


def short_side_size(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) with a shorter side of `side`, the longer one rounded down.

    Source: torchvision `Resize(side)`.
    """
    if height <= width:
        return side, side * width // height
    return side * height // width, side


def centre_crop(frames_THWC: np.ndarray, side: int) -> np.ndarray:
    """The middle square, offsets rounded to even: [T, H, W, C] -> [T, side, side, C].

    Source: torchvision `CenterCrop`.
    """
    top, left = (round((length - side) / 2) for length in frames_THWC.shape[1:3])
    return frames_THWC[:, top : top + side, left : left + side]


def read(path: Path, rate_fps: float, seconds: float, side: int) -> np.ndarray:
    """The first int(rate * seconds) frames, resized.

    Bicubic with antialias (Pillow's, of which torchvision's on uint8 is a copy; levels may differ
    by 1), the aspect ratio kept.

    Args:
      rate_fps: frames a second.
      seconds: of the video, from its first frame.
      side: length of the shorter side.
    Returns:
      uint8 [T, H, W, 3]; fewer frames of a shorter video.
    Raises:
      MediaError: "missing", "unreadable", "no_video", or "empty".
    """
    with containers.open_input(path) as opened:
        stream = containers.video_stream(opened)
        if stream is None:
            raise containers.MediaError("no_video", f"{path}: has no video stream")
        stream.thread_type = "AUTO"
        wanted = int(rate_fps * seconds)
        chosen = _chosen(frames_lib.timed_frames(opened, stream), rate_fps, wanted)
        made = [_resized(frame, side) for frame in chosen]
    if not made:
        raise containers.MediaError("empty", f"{path}: no video")
    return np.stack(made)


def _chosen(
    timed: Iterator[tuple[float, float, frames_lib.Frame]], rate_fps: float, wanted: int
) -> Iterator[frames_lib.Frame]:
    """Frames 0, 1, ... at a rate; a frame that is shown for long comes several times."""
    shown, origin_s, end_s, count = None, None, 0.0, 0
    for time_s, frame_end_s, frame in timed:
        origin_s = time_s if origin_s is None else origin_s
        place = _rounded((time_s - origin_s) * rate_fps)
        while shown is not None and count < min(place, wanted):
            count += 1
            yield shown
        if count >= wanted:
            return
        shown, end_s = frame, max(end_s, frame_end_s - origin_s)
    last = _rounded(end_s * rate_fps)
    while shown is not None and count < min(last, wanted):
        count += 1
        yield shown


def _rounded(value: float) -> int:
    """To the nearest whole number, halves upwards, as AV_ROUND_NEAR_INF."""
    return math.floor(value + 0.5 + 1e-9)  # times are sums of floats


def _resized(frame: frames_lib.Frame, side: int) -> np.ndarray:
    height, width = short_side_size(*frame.shown_size, side)
    image = Image.fromarray(frame.pixels())
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
