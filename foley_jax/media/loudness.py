"""How loud a clip sounds, in LUFS: the integrated loudness of ITU-R BS.1770-4, of one channel.

Axis letters: L audio samples, N blocks.
"""

import math

import numpy as np
from scipy import signal

BLOCK_S, OVERLAP = 0.4, 4  # a block begins every 100 ms
ABSOLUTE_GATE_LUFS = -70.0  # quieter blocks are silence
RELATIVE_GATE_LU = -10.0  # below the mean of the others: pauses
OFFSET_LU = -0.691  # BS.1770: a sine of 997 Hz at full scale in one channel has -3.01 LUFS
# The standard gives coefficients at 48 kHz only; these are the analogue filters behind them
SHELF_HZ, SHELF_DB, SHELF_Q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
SHELF_POWER = 0.4996667741545416
HIGHPASS_HZ, HIGHPASS_Q = 38.13547087602444, 0.5003270373238773


def integrated(audio_L: np.ndarray, sample_rate_hz: int) -> float:
    """Returns the loudness of a whole clip, of what is not silence or pause.

    -0.691 + 10 log10(mean square of the K-weighted blocks of 0.4 s above both gates). A clip
    shorter than a block is one block.

    Args:
      audio_L: float [L], full scale is 1.
      sample_rate_hz: its rate, above 3400 (the shelf lies at 1.7 kHz).
    Returns:
      LUFS; -inf of a clip that is silent or empty.
    Raises:
      ValueError: more than one channel, a sample that is not finite, or too low a rate.
    Source: ITU-R BS.1770-4, annex 1.
    """
    audio_L = np.asarray(audio_L, np.float64)
    if audio_L.ndim != 1 or not np.isfinite(audio_L).all():
        raise ValueError(f"audio of shape {list(audio_L.shape)}, expected finite samples [L]")
    if sample_rate_hz <= 2 * SHELF_HZ:
        raise ValueError(f"a rate of {sample_rate_hz} Hz, expected above {2 * SHELF_HZ:.0f}")
    if not len(audio_L):
        return -math.inf
    power_N = _block_powers(k_weighted(audio_L, sample_rate_hz), sample_rate_hz)
    loud_N = power_N[_lufs(power_N) > ABSOLUTE_GATE_LUFS]
    if not len(loud_N):
        return -math.inf
    gate_lufs = _lufs(loud_N.mean()) + RELATIVE_GATE_LU
    return float(_lufs(loud_N[_lufs(loud_N) > gate_lufs].mean()))


def k_weighted(audio_L: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Returns the clip, float64 [L], through the head's shelf and the high pass of BS.1770."""
    k = math.tan(math.pi * SHELF_HZ / sample_rate_hz)
    high = 10.0 ** (SHELF_DB / 20)
    middle = high**SHELF_POWER
    a0 = 1 + k / SHELF_Q + k * k
    ends = high + k * k, middle * k / SHELF_Q
    zeros = np.array([ends[0] + ends[1], 2 * (k * k - high), ends[0] - ends[1]]) / a0
    shelved_L = signal.lfilter(zeros, _poles(k, SHELF_Q), audio_L)
    k = math.tan(math.pi * HIGHPASS_HZ / sample_rate_hz)
    # the standard's numerator is not normalised
    return signal.lfilter([1.0, -2.0, 1.0], _poles(k, HIGHPASS_Q), shelved_L)


def _poles(k: float, q: float) -> list[float]:
    a0 = 1 + k / q + k * k
    return [1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]


def _block_powers(audio_L: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    length = round(BLOCK_S * sample_rate_hz)
    if len(audio_L) <= length:
        return np.array([np.mean(audio_L**2)])
    starts = np.arange(0, len(audio_L) - length + 1, length // OVERLAP)
    sums = np.concatenate([[0.0], np.cumsum(audio_L**2)])
    return np.maximum(sums[starts + length] - sums[starts], 0.0) / length


def _lufs(power):
    with np.errstate(divide="ignore"):
        return OFFSET_LU + 10 * np.log10(power)
