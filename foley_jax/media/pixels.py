"""Images as numbers in [-1, 1], which networks see, and as uint8, which files hold."""

import numpy as np


def from_uint8(pixels: np.ndarray) -> np.ndarray:
    """uint8 of any shape -> float32 in [-1, 1]: pixel / 127.5 - 1."""
    return pixels.astype(np.float32) / 127.5 - 1.0


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Float of any shape, about [-1, 1] -> uint8: (x + 1) * 127.5, clipped, then cut down.

    Cutting (and not rounding) is what the official scripts do; `from_uint8` and back may lose one
    grey level by it.

    Source: MM-Diffusion, every script that writes videos.
    """
    return np.clip((np.asarray(values) + 1.0) * 127.5, 0, 255).astype(np.uint8)
