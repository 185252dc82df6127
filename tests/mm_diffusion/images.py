"""Images of MM-Diffusion's data goldens."""

from goldens import fill
import numpy as np


def golden(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 [..., H, W, 3], the goldens' `u8_rule`: a wave and noise."""
    y, x = np.ogrid[: shape[-3], : shape[-2]]
    wave = np.sin((x / 7 + y / 11)[..., None] + np.arange(3))
    noise = fill.rng(f"public/input:data.{name}").standard_normal(shape, np.float32)
    # the rule's text says 60 and 40; all the goldens have been made with 30 and 60
    values = 127.5 + 30 * noise.astype(np.float64) + 60 * wave
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
