"""Small images made worse, so that super-resolution learns to mend what the base model makes.

Host code (NumPy). H W C image, h w small image.
"""

import dataclasses
from typing import Literal

import numpy as np
import simplejpeg

from foley_jax.media import fitting

Preset = Literal["default", "official"]


@dataclasses.dataclass(frozen=True)
class Degradation:
    """Cubic reduction, then noise, then JPEG, each of the last two with its own chance.

    "official" compresses red as blue and blue as red, as the official code does (it hands RGB
    images to a BGR encoder); "default" compresses what is seen. There is no blur. Without JPEG,
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

    def __call__(self, image_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] RGB -> float32 [height, width, 3], 0 to 255 but for the noise."""
        low = fitting.resize(
            image_HWC, (self.height, self.width), cubic=True, antialias=False
        ).astype(np.float32)
        if rng.random() < self.noise_probability:
            low = low + rng.uniform(0.0, self.max_noise) * rng.standard_normal(low.shape)
        if rng.random() < self.jpeg_probability:
            low = self.compress(low, int(rng.uniform(*self.jpeg_quality)))
        return low.astype(np.float32)

    def compress(self, image_HWC: np.ndarray, quality: int) -> np.ndarray:
        """Through a JPEG file with halved colour resolution: float [h, w, 3] -> uint8."""
        pixels = np.clip(np.rint(image_HWC), 0, 255).astype(np.uint8)
        space = "BGR" if self.preset == "official" else "RGB"
        data = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels), quality=quality, colorspace=space, colorsubsampling="420"
        )
        return simplejpeg.decode_jpeg(data, colorspace=space)
