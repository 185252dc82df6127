"""Latents that are known before sampling: of audio that is kept in part, or varied.

H V C latent rows, columns of a window and channels, W columns, F mels, T frames.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class KnownColumns(NamedTuple):
    """Latents [H, W, C], and which columns are known, bool [W]."""

    z_HWC: np.ndarray
    known_W: np.ndarray


def encoded(
    mel_FT: np.ndarray,
    blocks: int,
    encode: Callable[[np.ndarray], np.ndarray],
    *,
    block_frames: int,
    silence: float,
) -> np.ndarray:
    """Latents float32 [H, W, C] of a mel, a window at a time.

    Args:
      mel_FT: of any length; what is too much is cut off, what is missing is silence.
      blocks: windows of `block_frames` frames that are wanted.
      encode: mels [1, F, T] of a window -> latents [1, H, V, C], as the sampler has them.
      block_frames: frames of a window.
      silence: a mel's value of it.
    """
    length = blocks * block_frames
    missing = max(0, length - mel_FT.shape[1])
    mel_FT = np.pad(mel_FT[:, :length], ((0, 0), (0, missing)), constant_values=silence)
    parts = [np.asarray(encode(part_FT[None]))[0] for part_FT in np.split(mel_FT, blocks, axis=1)]
    return np.concatenate(parts, axis=1)


def on_tape(
    latents: Sequence[np.ndarray | None], starts: Sequence[int], count: int
) -> np.ndarray | None:
    """The latents of clips on a tape of `count` columns, zeros elsewhere; None if there are none.

    Args:
      latents: of every clip, float32 [H, W, C], or None.
      starts: the clips' first columns on the tape.
      count: columns of the tape.
    """
    given = [(z_HWC, at) for z_HWC, at in zip(latents, starts, strict=True) if z_HWC is not None]
    if not given:
        return None
    height, _, channels = given[0][0].shape
    tape_HWC = np.zeros((height, count, channels), np.float32)
    for z_HWC, at in given:
        tape_HWC[:, at : at + z_HWC.shape[1]] = z_HWC
    return tape_HWC


def columns_on_tape(
    known: Sequence[KnownColumns | None], starts: Sequence[int], count: int
) -> KnownColumns | None:
    """`on_tape` of latents and of which are known."""
    z_HWC = on_tape([own and own.z_HWC for own in known], starts, count)
    if z_HWC is None:
        return None
    known_W = np.zeros(count, bool)
    for own, at in zip(known, starts, strict=True):
        if own is not None:
            known_W[at : at + len(own.known_W)] = own.known_W
    return KnownColumns(z_HWC, known_W)
