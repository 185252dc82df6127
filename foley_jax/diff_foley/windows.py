"""Cuts a video's feature rows into model windows and joins the generated mels again.

Axis letters: L feature rows, D feature width, F mel bins, T mel frames.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from foley_jax.media import specs


@dataclasses.dataclass(frozen=True)
class WindowSpec:
    """The lengths of one window.

    Attributes:
      num_rows: feature rows the model is conditioned on (32).
      num_frames: mel frames the model makes (512).
      fps: feature rows per second (4).
      audio: mel front end of the model.
      overlap_s: least time that two neighbouring windows share.
      fade_s: length of the cross-fade inside the shared time.
    """

    num_rows: int
    num_frames: int
    fps: float
    audio: specs.AudioSpec
    overlap_s: float = 1.0
    fade_s: float = 0.25

    @property
    def duration_s(self) -> float:
        """Seconds of sound that the rows speak about (the mel may be a little longer)."""
        return self.num_rows / self.fps


def starts(num_rows: int, spec: WindowSpec) -> list[int]:
    """First row of every window: they cover all rows and overlap by at least `overlap_s`.

    The last window ends with the video instead of being padded; a video shorter than one
    window has the single start 0.
    """
    last = num_rows - spec.num_rows
    if last <= 0:
        return [0]
    stride = max(1, spec.num_rows - round(spec.overlap_s * spec.fps))
    count = -(-last // stride) + 1
    # equal spacing, so that no window is needlessly close to its neighbour
    return [round(i * last / (count - 1)) for i in range(count)]


def cut(rows_LD: np.ndarray, spec: WindowSpec) -> tuple[list[int], np.ndarray]:
    """Cuts rows into windows.

    Returns:
      The first row of each window, and float32 [num_windows, num_rows, D]; rows past the end
      repeat the last one (a picture that stands still).
    """
    if len(rows_LD) == 0:
        raise ValueError("the video has no feature rows; it must show at least one frame")
    first = starts(len(rows_LD), spec)
    index = np.minimum(np.array(first)[:, None] + np.arange(spec.num_rows), len(rows_LD) - 1)
    return first, np.asarray(rows_LD, np.float32)[index]  # [windows, num_rows, D]


def join(mels_FT: Sequence[np.ndarray], first_rows: Sequence[int], spec: WindowSpec) -> np.ndarray:
    """Joins window mels on one time line, each at its own absolute time.

    Placing by absolute time keeps windows from drifting: the error is at most half a mel frame
    for any length. Neighbours are cross-faded in the middle of the time they share.

    Args:
      mels_FT: one log-mel [F, num_frames] per window.
      first_rows: first feature row of each window, ascending.
    Returns:
      float32 [F, T], T reaching the end of the last window.
    """
    offsets = [round(row / spec.fps / spec.audio.frame_s) for row in first_rows]
    total = offsets[-1] + spec.num_frames
    out = np.zeros((mels_FT[0].shape[0], total), np.float32)
    end = 0
    for mel_FT, offset in zip(mels_FT, offsets):
        mel_FT = np.asarray(mel_FT, np.float32)
        shared = max(0, end - offset)
        fade = min(shared, max(1, round(spec.fade_s / spec.audio.frame_s)))
        before = (shared - fade) // 2
        if shared:
            ramp = (np.arange(fade, dtype=np.float32) + 0.5) / max(fade, 1)
            weight_T = np.concatenate(
                [np.zeros(before, np.float32), ramp, np.ones(shared - before - fade, np.float32)]
            )
            span = slice(offset, offset + shared)
            out[:, span] += weight_T * (mel_FT[:, :shared] - out[:, span])
        out[:, offset + shared : offset + spec.num_frames] = mel_FT[:, shared:]
        end = offset + spec.num_frames
    return out
