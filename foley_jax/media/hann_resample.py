"""The resampling of torchaudio, for figures that were published with it.

A sinc of 6 zero crossings on either side under a Hann window: so short a filter weakens the upper
end of the band and lets some of what lies above it fold back. `audio.resample` (soxr) is the better
filter; networks hear the difference.

L audio samples; M blocks of output, K samples under the filter, P phases of a block.
"""

from collections.abc import Callable
import math

import numpy as np

_ZEROS = 6  # lowpass_filter_width
_ROLLOFF = 0.99  # cut-off in parts of the lower Nyquist frequency


def resample(audio_L: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Audio at another rate as `torchaudio.transforms.Resample(from_hz, to_hz)` gives it.

    Args:
      audio_L: float [L].
      from_hz, to_hz: whole positive rates.
    Returns:
      float32 [ceil(L * to_hz / from_hz)]; the audio itself where the rates are equal.
    Raises:
      ValueError: rates that are not positive, or more than one axis.
    Source: torchaudio functional/functional.py `_get_sinc_resample_kernel`,
      `_apply_sinc_resample_kernel` (sinc_interp_hann).
    """
    return polyphase(audio_L, from_hz, to_hz, _filter)


def polyphase(
    audio_L: np.ndarray,
    from_hz: int,
    to_hz: int,
    filter_fn: Callable[[int, int], tuple[np.ndarray, int]],
) -> np.ndarray:
    """`resample` through another filter.

    Args:
      filter_fn: (samples in a block of input, samples in one of output: P phases) -> filter for
        every phase, float64 [P, 2 * width + samples of input], and its half width.
    """
    audio_L = np.asarray(audio_L)
    if from_hz <= 0 or to_hz <= 0 or audio_L.ndim != 1:
        raise ValueError(
            f"audio {audio_L.shape} from {from_hz} to {to_hz} Hz, expected [samples] and "
            "positive rates"
        )
    if from_hz == to_hz or not len(audio_L):
        return audio_L.astype(np.float32)
    divisor = math.gcd(from_hz, to_hz)
    step, phases = from_hz // divisor, to_hz // divisor
    filter_PK, width = filter_fn(step, phases)
    # one block of `phases` samples comes from every `step` samples
    blocks = len(audio_L) // step + 1
    padded = np.pad(audio_L.astype(np.float64), (width, width + step))
    windows_MK = np.lib.stride_tricks.sliding_window_view(padded, filter_PK.shape[1])[::step]
    found = (windows_MK[:blocks] @ filter_PK.T).reshape(-1)  # [M, P] -> [M*P]
    return found[: math.ceil(len(audio_L) * phases / step)].astype(np.float32)


def _filter(step: int, phases: int) -> tuple[np.ndarray, int]:
    """The filter for every phase, float64 [P, 2 * width + step], and its half width."""
    cutoff = min(step, phases) * _ROLLOFF
    width = math.ceil(_ZEROS * step / cutoff)
    at_K = np.arange(-width, width + step) / step
    # torchaudio divides whole numbers, which gives float32 there; it moves the filter by 1e-5
    shift_P = np.arange(phases, dtype=np.float32) / np.float32(phases)
    t = np.clip((at_K[None] - shift_P[:, None]) * cutoff, -_ZEROS, _ZEROS)
    window = np.cos(t * math.pi / _ZEROS / 2) ** 2
    return np.sinc(t) * window * (cutoff / step), width
