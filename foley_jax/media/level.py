"""How loud a clip may be: within full scale, by one gain for all of it.

Axis letters: L audio samples.
"""

import math
import os
import warnings

import numpy as np

from foley_jax.media import container, spool

# the loudest sample that 16 bits hold on either side of zero
FULL_SCALE = 32767 / 32768


def full_scale_gain(loudest: float) -> float:
    """The gain that brings a clip within full scale: 1.0 if its loudest |sample| is at most 1.

    Raises:
      ValueError: it is not finite.
    """
    if not math.isfinite(loudest):
        raise ValueError(f"the loudest sample is {loudest}, expected a finite number")
    return 1.0 if loudest <= 1.0 else FULL_SCALE / loudest


def within_full_scale(audio_L: np.ndarray) -> tuple[np.ndarray, float]:
    """A whole clip within full scale, and the gain that it took.

    Args:
      audio_L: float [L]. A clip in [-1, 1] comes back as the same array.
    Raises:
      ValueError: a sample is not finite.
    """
    gain = full_scale_gain(peak(audio_L))
    if gain == 1.0:
        return audio_L, gain
    if audio_L.nbytes <= spool.HELD_BYTES:
        return audio_L * audio_L.dtype.type(gain), gain
    quieter = spool.Spool()
    for piece_L in spool.pieces(audio_L):
        quieter.append(piece_L * piece_L.dtype.type(gain))
    return quieter.array(), gain


def peak(audio_L: np.ndarray) -> float:
    """The loudest |sample|; 0 of none."""
    peaks = [np.max(np.abs(piece_L)) for piece_L in spool.pieces(audio_L)]
    return float(np.max(peaks, initial=0.0))


def written(name: str | os.PathLike[str], audio_L: np.ndarray) -> np.ndarray:
    """`within_full_scale`, with a `MediaWarning` about `name` where it took a gain."""
    quieter_L, gain = within_full_scale(audio_L)
    if gain != 1.0:
        what = f"audio beyond full scale, all of it made {-decibels(gain):g} dB quieter"
        warnings.warn(container.MediaWarning(name, what), stacklevel=1)
    return quieter_L


def report(audio_L: np.ndarray) -> dict[str, float]:
    """{"gain_db": the gain that a clip is written with}; empty if it is none, or not finite."""
    loudest = peak(audio_L)
    gain = full_scale_gain(loudest) if math.isfinite(loudest) else 1.0
    return {} if gain == 1.0 else {"gain_db": decibels(gain)}


def decibels(gain: float) -> float:
    """A gain in dB; that of any clip beyond full scale has a digit that is not 0."""
    return round(20 * math.log10(gain), 4)
