"""Log-mel front ends of MMAudio's autoencoders, differentiable.

B batch, L audio samples, T frames, F mel bins, K frequency bins.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.media import mel as mel_lib
from foley_jax.mmaudio import rates as rates_lib

FLOOR = 1e-5  # smallest mel amplitude
POWER_FLOOR = 1e-9  # added to a bin's power


def log_mel(audio_BL: jax.Array, rates: rates_lib.Rates) -> jax.Array:
    """Returns the log-mels of audio: log10 of amplitudes at 16 kHz, ln at 44.1 kHz.

    Unlike `media.mel.log_mel`, windows are not centred (the audio is reflected by (n_fft - hop) / 2
    samples at both ends), nothing is scaled to [0, 1], and audio is clipped to [-1, 1] before.

    Args:
      audio_BL: float [..., L], in [-1, 1] at the rate of `rates.audio`.
      rates: "16k" or "44k" of `rates.RATES`.
    Returns:
      float32 [..., F, L // hop], at least log of 1e-5.
    Raises:
      ValueError: too few samples to reflect.
    Source: MMAudio `mel_converter.py`.
    """
    spec = rates.audio
    edge = (spec.n_fft - spec.hop) // 2
    if audio_BL.shape[-1] <= edge:
        raise ValueError(
            f"audio has {audio_BL.shape[-1]} samples, expected more than {edge} "
            f"({edge / spec.sample_rate_hz:.3f} s) to reflect it at its ends"
        )
    pads = [(0, 0)] * (audio_BL.ndim - 1) + [(edge, edge)]
    padded = jnp.pad(jnp.clip(audio_BL.astype(jnp.float32), -1.0, 1.0), pads, mode="reflect")
    windows = mel_lib.frames(padded, spec.n_fft, spec.hop)
    window = mel_lib.hann(spec.n_fft).reshape((1,) * (windows.ndim - 1) + (-1,))
    bins_TK = jnp.fft.rfft(windows * window)
    power = jnp.square(bins_TK.real) + jnp.square(bins_TK.imag)
    mel_FT = jnp.einsum(
        "fk,...tk->...ft",
        mel_lib.mel_basis(spec),
        jnp.sqrt(power + POWER_FLOOR),
        precision=jax.lax.Precision.HIGHEST,
    )
    log = jnp.log10 if rates.log10 else jnp.log
    return log(jnp.maximum(mel_FT, FLOOR))


def floor(rates: rates_lib.Rates) -> float:
    """Returns the log-mel's smallest value."""
    return math.log10(FLOOR) if rates.log10 else math.log(FLOOR)


def unit(mel_FT: np.ndarray, rates: rates_lib.Rates) -> np.ndarray:
    """Returns log-mels on the scale of `media.mel.log_mel`, 0 to 1, for plots."""
    log10_FT = mel_FT if rates.log10 else mel_FT / math.log(10)
    return np.clip(0.8 + 0.2 * log10_FT, 0.0, 1.0).astype(np.float32)
