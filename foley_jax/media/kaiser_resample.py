"""The resampling that MMAudio's features were extracted with: torchaudio's "kaiser_best".

A sinc of 64 zero crossings on either side under a Kaiser window, as resampy's filter of that name.
"""

import math

import numpy as np

from foley_jax.media import hann_resample

_ZEROS = 64  # lowpass_filter_width
_ROLLOFF = 0.9475937167399596  # cut-off in parts of the lower Nyquist frequency
_BETA = 14.769656459379492  # of the window


def resample(audio_L: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Audio at another rate as torchaudio's "sinc_interp_kaiser" gives it with MMAudio's numbers.

    Args, returns, raises: as `hann_resample.resample`.
    Source: MMAudio data extraction, torchaudio `Resample(..., lowpass_filter_width=64, ...)`.
    """
    return hann_resample.polyphase(audio_L, from_hz, to_hz, _filter)


def _filter(step: int, phases: int) -> tuple[np.ndarray, int]:
    cutoff = min(step, phases) * _ROLLOFF
    width = math.ceil(_ZEROS * step / cutoff)
    at_K = np.arange(-width, width + step) / step
    # torchaudio divides whole numbers, which gives float32 there
    shift_P = np.arange(phases, dtype=np.float32) / np.float32(phases)
    t = np.clip((at_K[None] - shift_P[:, None]) * cutoff, -_ZEROS, _ZEROS)
    window = np.i0(_BETA * np.sqrt(1 - (t / _ZEROS) ** 2)) / np.i0(_BETA)
    return np.sinc(t) * window * (cutoff / step), width
