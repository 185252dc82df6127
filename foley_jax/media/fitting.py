"""Images of any shape brought to one size: stretched, whole with black bars, or cut.

H W C image, h w wanted size.
"""

import functools

import numpy as np
from PIL import Image

from foley_jax.media import specs


def fit(
    image_HWC: np.ndarray, spec: specs.VideoSpec, shown_size: tuple[int, int] | None = None
) -> np.ndarray:
    """One image at the size of `spec`, fitted as it says.

    "stretch" resizes both sides, bilinearly: with antialias it is PIL's `resize`. "letterbox"
    keeps the aspect ratio, resizes bicubically, centres, and fills the rest with black: with
    antialias it is torchvision's `Resize(BICUBIC)` of tensors from version 0.17 on, without it
    that of older versions, with which MM-Diffusion's released weights were most likely trained,
    and also OpenCV's INTER_CUBIC, which its super-resolution was trained with. "stretch_cubic"
    and "crop" are PIL's bicubic `resize` (torchvision's of uint8 tensors differs by one level,
    rarely two); "crop" covers the wanted size and cuts what sticks out, as `CenterCrop` does. An
    image of the wanted size is left as it is.

    Args:
      image_HWC: uint8 RGB.
      spec: height, width, fit, antialias.
      shown_size: (height, width) in square pixels, where the image's own are no squares.
    Returns:
      uint8 [h, w, 3].
    Source: multimodal_datasets.py `process_video`, real_image_datasets.py `resize_img`.
    """
    size, cubic = inner_size(shown_size or image_HWC.shape[:2], spec), is_cubic(spec)
    if image_HWC.shape[:2] == size:
        return framed(image_HWC, spec)
    if spec.fit == "letterbox" or not spec.antialias:
        return framed(resize(image_HWC, size, cubic=cubic, antialias=spec.antialias), spec)
    kernel = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    return framed(np.asarray(Image.fromarray(image_HWC).resize(size[::-1], kernel)), spec)


def is_cubic(spec: specs.VideoSpec) -> bool:
    """Whether images are resized bicubically, or bilinearly."""
    return spec.fit != "stretch"


def inner_size(shown_size: tuple[int, int], spec: specs.VideoSpec) -> tuple[int, int]:
    """(height, width) of an image before it gets bars or is cut; else the size of `spec`.

    Args:
      shown_size: (height, width) of the image, in square pixels.
      spec: height, width, fit.
    """
    if spec.fit in ("stretch", "stretch_cubic"):
        return spec.height, spec.width
    if spec.fit == "crop":
        height, width = shown_size
        if spec.height * width >= spec.width * height:  # as high as wanted, and wider
            return spec.height, max(spec.width, int(spec.height * width / height))
        return max(spec.height, int(spec.width * height / width)), spec.width
    ratio = min(spec.height / shown_size[0], spec.width / shown_size[1])
    # cut down as in the source, where 161 * (64 / 161) becomes 63
    height, width = (max(1, int(side * ratio)) for side in shown_size)
    return height, width


def framed(image_HWC: np.ndarray, spec: specs.VideoSpec) -> np.ndarray:
    """The image of `inner_size` at the size of `spec`: within black bars, or its middle."""
    if spec.fit == "crop":
        # an odd row or column is cut where Python's round, ties to even, leaves it
        top, left = (
            round((side - wanted) / 2)
            for side, wanted in zip(image_HWC.shape[:2], (spec.height, spec.width))
        )
        return image_HWC[top : top + spec.height, left : left + spec.width]
    bars = [spec.height - image_HWC.shape[0], spec.width - image_HWC.shape[1]]
    if not any(bars):
        return image_HWC
    # an odd row or column goes to the bottom or right
    return np.pad(image_HWC, (*((bar // 2, bar - bar // 2) for bar in bars), (0, 0)))


def resize(
    image_HWC: np.ndarray, size: tuple[int, int], *, cubic: bool, antialias: bool
) -> np.ndarray:
    """Bicubic or bilinear, in float32, rounded once.

    Without antialias and bicubic it is OpenCV's INTER_CUBIC, of whose results (180x320 -> 144x256,
    300x170 -> 256x145, 256x256 -> 64x64) no pixel differed.

    Args:
      image_HWC: uint8.
      size: wanted (height, width).
    Returns:
      uint8 [height, width, C].
    Raises:
      ValueError: not an image of uint8.
    Source: torch `interpolate`; cv2.resize.
    """
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3:
        raise ValueError(f"image is {image_HWC.dtype} {image_HWC.shape}, expected uint8 [H, W, C]")
    x = resample(image_HWC.astype(np.float32), size, cubic=cubic, antialias=antialias)
    return np.ascontiguousarray(np.rint(np.clip(x, 0, 255)).astype(np.uint8))


def resample(
    x_HWC: np.ndarray, size: tuple[int, int], *, cubic: bool, antialias: bool
) -> np.ndarray:
    """`resize` of float32 of any range, without its rounding."""
    rows, columns = (
        _weights(source, wanted, cubic, antialias) for source, wanted in zip(x_HWC.shape[:2], size)
    )
    # float32 throughout, as in torch
    x = np.einsum("hH,HWC->hWC", rows, x_HWC, optimize=True)
    return np.einsum("wW,hWC->hwC", columns, x, optimize=True)


@functools.lru_cache(maxsize=64)
def _weights(source: int, wanted: int, cubic: bool, antialias: bool) -> np.ndarray:
    """Returns what each source pixel gives to each wanted one, float32 [wanted, source].

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
