"""What av-benchmark's networks see of a reference's video.

Frames are those of ffmpeg's `fps` filter in the first `seconds`, their shorter side 224
(`media.filtered_frames`): at 25 frames/s Synchformer sees the middle square, at 0.5 frames/s
ImageBind three squares of every two consecutive frames. 'official' refuses a video that is shorter
than `seconds`, 'default' one that the network cannot judge at all.
Source: av-benchmark av_bench/data/video_dataset.py `VideoDataset`.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from pathlib import Path

import numpy as np

from foley_jax.evaluation.networks import imagebind, imagebind_inputs
from foley_jax.media import container, filtered_frames
from foley_jax.mmaudio.models import synchformer

IMAGEBIND_FPS = 0.5
_MIN_SEGMENTS = 14


def _read(path: Path, rate_fps: float, seconds: float, least: int, exact: bool) -> np.ndarray:
    frames = filtered_frames.read(path, rate_fps, seconds, synchformer.IMAGE_SIZE)
    need = max(least, int(rate_fps * seconds)) if exact else least
    if len(frames) < need:
        raise container.MediaError(
            "unsupported",
            f"{path}: {len(frames)} frames at {rate_fps} frames/s, the network needs {need}",
        )
    return frames


def for_synchformer(path: Path, seconds: float, *, exact: bool = False) -> np.ndarray:
    """uint8 [T, 224, 224, 3] at 25 frames/s.

    Args:
      exact: refuse a video shorter than `seconds` ('official').
    Raises:
      MediaError: as `filtered_frames.read`; "unsupported" of a video that is too short.
    """
    least = synchformer.SEGMENT_FRAMES + (_MIN_SEGMENTS - 1) * synchformer.STEP_FRAMES
    frames = _read(path, synchformer.RATE_FPS, seconds, least, exact)
    return filtered_frames.centre_crop(frames, synchformer.IMAGE_SIZE)


def for_imagebind(path: Path, seconds: float, *, exact: bool = False) -> np.ndarray:
    """uint8 [3 (T - 1), 2, 224, 224, 3]; arguments and errors as `for_synchformer`."""
    frames = _read(path, IMAGEBIND_FPS, seconds, imagebind.CLIP_FRAMES, exact)
    return imagebind_inputs.crops(frames)


@dataclasses.dataclass(frozen=True)
class Seen:
    """A cache file that is made of videos.

    Attributes:
      network: of `networks.registry`.
      read: (path, seconds, exact=) -> what the network takes.
    """

    network: str
    read: Callable[..., np.ndarray]

    def reader(self, seconds: float, exact: bool) -> Callable[[Path], np.ndarray]:
        return functools.partial(self.read, seconds=seconds, exact=exact)


SEEN: Mapping[str, Seen] = {
    "synchformer_video": Seen("synchformer_video", for_synchformer),
    "imagebind_video": Seen("imagebind_video", for_imagebind),
}
