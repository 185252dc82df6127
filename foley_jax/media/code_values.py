"""The code values of a decoded frame, of any depth, without what 8 bits would lose.

Axis letters: H W C image, h w one of its planes.
"""

import re

import av
import numpy as np

FULL_RANGE = 2  # of FFmpeg's color_range
# red's and blue's share of luma, by FFmpeg's colorspace; BT.2020's where nothing better is known
_LUMA = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
_PLANAR = re.compile(r"yuv[aj]?4\d\dp(\d+le)?")


def planes(frame: av.VideoFrame) -> tuple[list[np.ndarray], np.ndarray]:
    """Planes of a frame, chroma as small as it is stored, and the matrix that makes R'G'B' of them.

    Returns:
      Three planes float32 [h, w]: Y' in about [0, 1], Cb and Cr in about [-0.5, 0.5], or R', G'
      and B' in [0, 1]; and float32 [3, 3], for columns of them brought to one size.
    """
    if frame.format.is_rgb:
        green, blue, red = _scaled(frame.reformat(format="gbrp16le"), 0.0, 65535.0)
        return [red, green, blue], np.eye(3, dtype=np.float32)
    if not _PLANAR.fullmatch(frame.format.name):  # P010 of hardware, packed ones, big-endian ones
        frame = frame.reformat(format="yuv444p16le")
    bits = frame.format.components[0].bits
    unit = 2.0 ** (bits - 8)
    if frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj"):
        luma, chroma = (0.0, 2.0**bits - 1), (128 * unit, 2.0**bits - 1)
    else:
        luma, chroma = (16 * unit, 219 * unit), (128 * unit, 224 * unit)
    y, *_ = _scaled(frame, *luma)
    _, cb, cr = _scaled(frame, *chroma)
    return [y, cb, cr], _to_rgb(*_LUMA.get(int(frame.colorspace), _LUMA[9]))


def _scaled(frame: av.VideoFrame, zero: float, one: float) -> list[np.ndarray]:
    """The first three planes, so that the code values `zero` and zero + one become 0 and 1."""
    dtype = np.dtype("<u2" if frame.format.components[0].bits > 8 else "u1")
    found = []
    for plane in frame.planes[:3]:
        rows = np.frombuffer(plane, dtype).reshape(plane.height, plane.line_size // dtype.itemsize)
        values = rows[:, : plane.width].astype(np.float32)
        found.append((values - np.float32(zero)) / np.float32(one))
    return found


def _to_rgb(red: float, blue: float) -> np.ndarray:
    green = 1 - red - blue
    of_cr, of_cb = 2 * (1 - red), 2 * (1 - blue)
    return np.array(
        [
            (1.0, 0.0, of_cr),
            (1.0, -of_cb * blue / green, -of_cr * red / green),
            (1.0, of_cb, 0.0),
        ],
        np.float32,
    )
