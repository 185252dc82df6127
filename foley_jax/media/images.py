"""Small images straight from arrays, for logs: mels, strips of frames, tables, captions.

F mel bins, T frames, H W image.
"""

from collections.abc import Sequence

import matplotlib
import numpy as np
import PIL.Image
import PIL.ImageDraw

STRIP_FRAMES = 16  # of a clip, at most
STRIP_HEIGHT = 96  # pixels, at most
_GAP = 3
_CAPTION_HEIGHT = 14
_INK, _PAPER = (20, 20, 20), 255


def heat(values: np.ndarray, low: float, high: float, *, cell: int = 1) -> np.ndarray:
    """A table of numbers as colours from black (`low`) over red to light yellow (`high`).

    Args:
      values: float [H, W].
      cell: pixels of a number in height and width.
    Returns:
      uint8 [H * cell, W * cell, 3].
    """
    share = np.clip((np.asarray(values, np.float32) - low) / (high - low), 0.0, 1.0)
    pixels = matplotlib.colormaps["magma"](share, bytes=True)[..., :3]
    return pixels.repeat(cell, axis=0).repeat(cell, axis=1)


def mel(mel_FT: np.ndarray, *, cell: int = 2) -> np.ndarray:
    """A log-mel in [0, 1] [F, T], low bins below: uint8 [F * cell, T * cell, 3]."""
    return heat(mel_FT[::-1], 0.0, 1.0, cell=cell)


def strip(frames_THWC: np.ndarray) -> np.ndarray:
    """Frames side by side, the first on the left; of many, evenly chosen ones.

    Args:
      frames_THWC: uint8 RGB, at least one; large ones are made smaller.
    Returns:
      uint8 [H', W', 3].
    """
    length, height, width = frames_THWC.shape[:3]
    count = min(length, STRIP_FRAMES)
    chosen = frames_THWC[np.arange(count) * length // count]
    if height > STRIP_HEIGHT:
        size = (max(1, round(width * STRIP_HEIGHT / height)), STRIP_HEIGHT)
        chosen = [PIL.Image.fromarray(frame).resize(size) for frame in chosen]
    return beside([np.asarray(frame) for frame in chosen], gap=1)


def stretch(image: np.ndarray, width: int) -> np.ndarray:
    """The image uint8 [H, W, 3] in another width, columns repeated or left out."""
    return image[:, np.arange(width) * image.shape[1] // width]


def caption(text: str, image: np.ndarray) -> np.ndarray:
    """The image under a line of text; what does not fit into its width is cut off."""
    line = PIL.Image.new("RGB", (image.shape[1], _CAPTION_HEIGHT), (_PAPER,) * 3)
    PIL.ImageDraw.Draw(line).text((2, 1), text, fill=_INK)
    return np.concatenate([np.asarray(line), image])


def below(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images uint8 [H, W, 3] of any sizes under each other."""
    width = max(image.shape[1] for image in images)
    rows = []
    for image in images:
        missing = width - image.shape[1]
        rows.append(np.pad(image, ((0, _GAP), (0, missing), (0, 0)), constant_values=_PAPER))
    return np.concatenate(rows)[:-_GAP]


def beside(images: Sequence[np.ndarray], *, gap: int = _GAP) -> np.ndarray:
    """Images uint8 [H, W, 3] of any sizes side by side, `gap` pixels between them."""
    height = max(image.shape[0] for image in images)
    columns = []
    for image in images:
        missing = height - image.shape[0]
        columns.append(np.pad(image, ((0, missing), (0, gap), (0, 0)), constant_values=_PAPER))
    joined = np.concatenate(columns, axis=1)
    return joined[:, : joined.shape[1] - gap]
