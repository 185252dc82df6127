"""The wrong pitch of Diff-Foley's published outputs: heard, and put right.

The official notebook turns 16 kHz mels back with the filters of 22.05 kHz. Every frequency comes
out at 16 / 22.05 = 0.726 of its own, and nothing lies above 0.726 * 7600 Hz = 5515 Hz. So the mel
that the model made is what those same filters hear in the file, and the right filters invert it.

L audio samples, T frames, K frequency bins.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.media import mel
from foley_jax.media.specs import AudioSpec
from foley_jax.vocoders import griffin_lim

SPEC = AudioSpec()  # Diff-Foley's mels: 16 kHz, hop 256, 128 mels of 125-7600 Hz
WRONG_RATE_HZ = 22050
EDGE_HZ = SPEC.fmax_hz * SPEC.sample_rate_hz / WRONG_RATE_HZ  # 5515
# decibels; of 13 VGGSound clips, 26 published outputs have 17 or more and 104 others at most 9
LEAST_STEP_DB = 13.0
_WIDTH_HZ = 300.0  # of each band; between the two at the edge a window's width is left out
_GAP_HZ = 100.0
_SLOPE_HZ = 500.0  # from one step to the next, where the slope beside the edge is measured
_FLOOR = 1e-9  # power of a bin, of silence


def step_db(audio_L: np.ndarray) -> float:
    """How far a spectrum falls at `EDGE_HZ`, beyond its slopes below and above.

    Of the half of the frames that are loudest below the edge, the median fall from the 300 Hz
    below it to the 300 Hz above it; less the larger fall of two such steps 500 Hz lower and 600 Hz
    higher, so that a spectrum that falls everywhere has no edge.

    Args:
      audio_L: float [L] at 16 kHz.
    Returns:
      Decibels; 0 of audio too short for a window.
    """
    if len(audio_L) < SPEC.n_fft:
        return 0.0
    cut = np.lib.stride_tricks.sliding_window_view(audio_L.astype(np.float64), SPEC.n_fft)
    power_TK = np.abs(np.fft.rfft(cut[:: SPEC.hop] * mel.hann(SPEC.n_fft))) ** 2
    edge = _fall(power_TK, EDGE_HZ)
    return edge - max(0.0, _fall(power_TK, EDGE_HZ - _SLOPE_HZ), _fall(power_TK, EDGE_HZ + 600.0))


def has_defect(audio_L: np.ndarray) -> bool:
    """Whether an audio clip, float [L] at 16 kHz, ends at `EDGE_HZ` as the notebook's do."""
    return step_db(audio_L) >= LEAST_STEP_DB


def _fall(power_TK: np.ndarray, edge_hz: float) -> float:
    """Median decibels from below to above a frequency, of the louder half of the frames."""
    hertz_K = np.fft.rfftfreq(SPEC.n_fft, 1 / SPEC.sample_rate_hz)
    below_T, above_T = (
        power_TK[:, (hertz_K >= low) & (hertz_K < low + _WIDTH_HZ)].mean(axis=1) + _FLOOR
        for low in (edge_hz - _GAP_HZ - _WIDTH_HZ, edge_hz + _GAP_HZ)
    )
    loud = below_T >= np.median(below_T)
    return float(np.median(10.0 * np.log10(below_T[loud] / above_T[loud])))


@functools.partial(jax.jit, static_argnames=("basis_rate_hz", "iterations"))
def repaired(
    audio_L: jax.Array, *, basis_rate_hz: int = WRONG_RATE_HZ, iterations: int = 16
) -> jax.Array:
    """The audio of the mel that the model made, at its own pitch and of the same length.

    Phases are made anew, by Griffin-Lim: what that costs is seen with the right filters both
    times, `basis_rate_hz` 16000.

    Args:
      audio_L: float [L] at 16 kHz, L > 512.
      basis_rate_hz: rate that the filters believed, with which the file was made.
      iterations: of Griffin-Lim.
    Returns:
      float32 [L].
    Raises:
      ValueError: too short.
    """
    amplitude_TK = jnp.abs(mel.stft(audio_L[None], SPEC))[0]
    mel_FT = jnp.matmul(
        mel.mel_basis(SPEC, basis_rate_hz), amplitude_TK.T, precision=jax.lax.Precision.HIGHEST
    )
    magnitude_TK = griffin_lim.mel_to_stft(mel_FT, SPEC)
    return griffin_lim.griffin_lim(
        magnitude_TK, SPEC, iterations=iterations, length=audio_L.shape[-1]
    )
