"""Small pictures made worse, so that super-resolution learns to mend what the base model makes.

Host code (NumPy). H W C picture, h w small picture.
"""

import dataclasses
from typing import Literal

import numpy as np
import simplejpeg

Preset = Literal["default", "official"]
CUBIC_A = -0.75  # OpenCV's; PIL and torchvision have -0.5
_FIXED_BITS = 11  # OpenCV weighs 8-bit pixels in steps of 2 ** -11


def _cubic_matrix(source: int, wanted: int) -> np.ndarray:
    """Weights in 2 ** -11, int64 [wanted, source]; pixels beyond the edge repeat it."""
    matrix = np.zeros((wanted, source), np.int64)
    centre = ((np.arange(wanted) + 0.5) * (source / wanted) - 0.5).astype(np.float32)
    first = np.floor(centre).astype(int)
    rest = centre - np.floor(centre)
    one = np.float32(1.0)
    a = np.float32(CUBIC_A)

    def near(d):  # at most one pixel away
        return ((a + 2) * d - (a + 3)) * d * d + one

    def far(d):  # one to two pixels away
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    weights = [far(rest + one), near(rest), near(one - rest)]
    weights.append(one - sum(weights))
    for tap, weight in enumerate(weights):
        pixel = np.clip(first - 1 + tap, 0, source - 1)
        fixed = np.rint(weight * 2**_FIXED_BITS).astype(np.int64)
        np.add.at(matrix, (np.arange(wanted), pixel), fixed)
    return matrix


def cubic_resize(picture_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic without antialias, in OpenCV's fixed-point arithmetic.

    Equal to OpenCV's result bit by bit for 256 -> 64 and for 180x320 -> 144x256; other ratios may
    differ by one in a few per cent of the pixels.

    Args:
      picture_HWC: uint8.
      size: wanted (height, width).
    Returns:
      uint8 [height, width, C].
    Source: cv2.resize with INTER_CUBIC.
    """
    if picture_HWC.dtype != np.uint8 or picture_HWC.ndim != 3:
        raise ValueError(
            f"picture is {picture_HWC.dtype} {picture_HWC.shape}, expected uint8 [H, W, C]"
        )
    rows = _cubic_matrix(picture_HWC.shape[0], size[0]).astype(np.float64)
    columns = _cubic_matrix(picture_HWC.shape[1], size[1]).astype(np.float64)
    # exact, as integers below 2 ** 53; halves go to the even neighbour
    x = np.einsum("wW,HWC->HwC", columns, picture_HWC.astype(np.float64), optimize=True)
    x = np.einsum("hH,HwC->hwC", rows, x, optimize=True)
    x = np.rint(x / 2 ** (2 * _FIXED_BITS))
    return np.ascontiguousarray(np.clip(x, 0, 255).astype(np.uint8))


@dataclasses.dataclass(frozen=True)
class Degradation:
    """Cubic reduction, then noise, then JPEG, each of the last two with its own chance.

    "official" compresses red as blue and blue as red, as the official code does (it hands RGB
    pictures to a BGR encoder); "default" compresses what is seen. There is no blur. Without JPEG,
    noise is neither rounded nor clipped.

    Source: real_image_datasets.py RealImageDataset.
    """

    height: int = 64
    width: int = 64
    noise_probability: float = 0.5
    max_noise: float = 20.0  # of 255
    jpeg_probability: float = 0.5
    jpeg_quality: tuple[int, int] = (20, 80)  # the upper end is not drawn
    preset: Preset = "default"

    def __post_init__(self):
        if self.preset not in ("default", "official"):
            raise ValueError(f"preset is {self.preset!r}, expected 'default' or 'official'")
        low, high = self.jpeg_quality
        if not 1 <= low <= high <= 100:
            raise ValueError(
                f"jpeg_quality is {self.jpeg_quality}, expected 1 <= low <= high <= 100"
            )

    def __call__(self, picture_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] RGB -> float32 [height, width, 3], 0 to 255 but for the noise."""
        low = cubic_resize(picture_HWC, (self.height, self.width)).astype(np.float32)
        if rng.random() < self.noise_probability:
            low = low + rng.uniform(0.0, self.max_noise) * rng.standard_normal(low.shape)
        if rng.random() < self.jpeg_probability:
            low = self.compress(low, int(rng.uniform(*self.jpeg_quality)))
        return low.astype(np.float32)

    def compress(self, picture_HWC: np.ndarray, quality: int) -> np.ndarray:
        """Through a JPEG file with halved colour resolution: float [h, w, 3] -> uint8."""
        pixels = np.clip(np.rint(picture_HWC), 0, 255).astype(np.uint8)
        space = "BGR" if self.preset == "official" else "RGB"
        data = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels), quality=quality, colorspace=space, colorsubsampling="420"
        )
        return simplejpeg.decode_jpeg(data, colorspace=space)
