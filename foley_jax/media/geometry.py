"""How a stored image is shown: turned, mirrored, and with pixels that are no squares.

Axis letters: H W stored image.
"""

import dataclasses
from fractions import Fraction

import av
import numpy as np

# Headers that claim more than this lie; the widest real one is 64:33, CinemaScope in PAL
MOST_STRETCHED = 16
SQUARE = Fraction(1)


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Operations of a player on a stored image before it shows it.

    Attributes:
      turns: quarter turns counter-clockwise.
      mirrored: left and right change places, before it is turned.
      aspect: width of a stored pixel by its height.
    """

    turns: int = 0
    mirrored: bool = False
    aspect: Fraction = SQUARE

    def upright(self, image_HW: np.ndarray) -> np.ndarray:
        """The image, or one plane of it ([H, W, ...]), turned; still of stored pixels."""
        if self.mirrored:
            image_HW = image_HW[:, ::-1]
        return np.ascontiguousarray(np.rot90(image_HW, self.turns))

    @property
    def turned_aspect(self) -> Fraction:
        """Width of a pixel by its height after `upright`."""
        return 1 / self.aspect if self.turns % 2 else self.aspect

    def shown_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in square pixels of a stored image's upright form; no side shrinks."""
        if self.aspect >= 1:
            width = round(width * self.aspect)
        else:
            height = round(height / self.aspect)
        return (width, height) if self.turns % 2 else (height, width)


def sane_aspect(ratio: Fraction | None) -> Fraction:
    """A sample aspect ratio as headers state it; 1 where they state none or an absurd one."""
    if ratio is None or not Fraction(1, MOST_STRETCHED) <= ratio <= MOST_STRETCHED:
        return SQUARE
    return Fraction(ratio)


def turned(frame: av.VideoFrame) -> tuple[int, bool]:
    """(turns, mirrored) of a frame, to the nearest quarter turn: phones film rotated."""
    matrix = _display_matrix(frame)
    if matrix is None:
        return round(frame.rotation / 90) % 4, False
    a, b, _, c, d = (float(value) for value in matrix[:5])
    # stored (x, y) is shown at (a x + c y, b x + d y), y down; mirroring turns x round first
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    angle = np.arctan2(c - b, a + d)  # counter-clockwise, of the rotation that comes nearest
    return round(float(angle) / (np.pi / 2)) % 4, mirrored


def _display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    try:
        found = [data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"]
    except ValueError:  # a kind of side data that PyAV has no name for
        return None
    # a singular one says nothing
    matrices = [np.frombuffer(bytes(data), np.int32) for data in found]
    return next((m for m in matrices if m.size == 9 and np.any(m[[0, 1, 3, 4]])), None)
