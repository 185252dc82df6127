"""Pictures of any shape brought to one size: stretched, or whole with black bars.

H W C picture, h w wanted size.
"""

import functools

import numpy as np
from PIL import Image

from foley_jax.media import specs


def fit(picture_HWC: np.ndarray, spec: specs.VideoSpec) -> np.ndarray:
    """One picture at the size of `spec`, fitted as it says.

    "stretch" resizes both sides, bilinearly: with antialias it is PIL's `resize`. "letterbox"
    keeps the aspect ratio, resizes bicubically, centres, and fills the rest with black: with
    antialias it is torchvision's `Resize(BICUBIC)` of tensors from version 0.17 on, without it
    that of older versions, with which MM-Diffusion's released weights were most likely trained,
    and also OpenCV's INTER_CUBIC, which its super-resolution was trained with. A picture of the
    wanted size is left as it is.

    Args:
      picture_HWC: uint8 RGB.
      spec: height, width, fit, antialias.
    Returns:
      uint8 [h, w, 3].
    Source: multimodal_datasets.py `process_video`, real_image_datasets.py `resize_img`.
    """
    size = (spec.height, spec.width)
    if picture_HWC.shape[:2] == size:
        return picture_HWC
    if spec.fit == "letterbox":
        return _letterbox(picture_HWC, size, spec.antialias)
    if not spec.antialias:
        return resize(picture_HWC, size, cubic=False, antialias=False)
    image = Image.fromarray(picture_HWC)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


def _letterbox(picture_HWC: np.ndarray, size: tuple[int, int], antialias: bool) -> np.ndarray:
    sides = picture_HWC.shape[:2]
    ratio = min(wanted / side for wanted, side in zip(size, sides))
    # cut down as in the source, where 161 * (64 / 161) becomes 63
    inner = tuple(max(1, int(side * ratio)) for side in sides)
    made = resize(picture_HWC, inner, cubic=True, antialias=antialias)
    bars = [wanted - side for wanted, side in zip(size, inner)]
    # an odd row or column goes to the bottom or right
    return np.pad(made, (*((bar // 2, bar - bar // 2) for bar in bars), (0, 0)))


def resize(
    picture_HWC: np.ndarray, size: tuple[int, int], *, cubic: bool, antialias: bool
) -> np.ndarray:
    """Bicubic or bilinear, in float32, rounded once.

    Without antialias and bicubic it is OpenCV's INTER_CUBIC, of whose results (180x320 -> 144x256,
    300x170 -> 256x145, 256x256 -> 64x64) no pixel differed.

    Args:
      picture_HWC: uint8.
      size: wanted (height, width).
    Returns:
      uint8 [height, width, C].
    Raises:
      ValueError: not a picture of uint8.
    Source: torch `interpolate`; cv2.resize.
    """
    if picture_HWC.dtype != np.uint8 or picture_HWC.ndim != 3:
        raise ValueError(
            f"picture is {picture_HWC.dtype} {picture_HWC.shape}, expected uint8 [H, W, C]"
        )
    rows, columns = (
        _weights(source, wanted, cubic, antialias)
        for source, wanted in zip(picture_HWC.shape[:2], size)
    )
    # float32 throughout, as in torch
    x = np.einsum("hH,HWC->hWC", rows, picture_HWC.astype(np.float32), optimize=True)
    x = np.einsum("wW,hWC->hwC", columns, x, optimize=True)
    return np.ascontiguousarray(np.rint(np.clip(x, 0, 255)).astype(np.uint8))


@functools.lru_cache(maxsize=64)
def _weights(source: int, wanted: int, cubic: bool, antialias: bool) -> np.ndarray:
    """What each source pixel gives to each wanted one, float32 [wanted, source].

    Source: torch `interpolate(align_corners=False)`; its cubic kernel has a = -0.5 with antialias
    and -0.75 without.
    """
    kernel = functools.partial(_cubic, a=-0.5 if antialias else -0.75) if cubic else _linear
    radius = 2 if cubic else 1
    scale = source / wanted
    centre = (np.arange(wanted)[:, None] + 0.5) * scale - 0.5  # in source pixels
    if antialias:
        scale = max(scale, 1.0)  # the kernel is as wide as a wanted pixel
        pixel = np.arange(source)
        weights = kernel((pixel - centre) / scale)
        return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    weights = np.zeros((wanted, source))
    first = np.floor(centre).astype(int)
    for tap in range(1 - radius, radius + 1):
        pixel = np.clip(first + tap, 0, source - 1)  # beyond the edge its pixel is repeated
        np.add.at(weights, (np.arange(wanted)[:, None], pixel), kernel(first + tap - centre))
    return weights.astype(np.float32)


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - np.abs(distance))


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel: 1 at 0, 0 at every other integer and beyond 2."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
