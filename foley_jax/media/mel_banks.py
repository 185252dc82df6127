"""Mel filters and spectra as torchaudio and Kaldi make them; `mel.py` has librosa's.

B batch, L audio samples, T frames, K frequency bins, F mel bins.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.media import mel


def _triangles(points_K: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Filters of peak 1 whose sides are straight on the scale of the points: float64 [K, F]."""
    points, low, centre, high = (
        points_K[:, None],
        edges[None, :-2],
        edges[None, 1:-1],
        edges[None, 2:],
    )
    rising, falling = (points - low) / (centre - low), (high - points) / (high - centre)
    return np.maximum(0.0, np.minimum(rising, falling))


@functools.lru_cache(maxsize=8)
def kaldi(rate_hz: int, n_fft: int, num_mels: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Filters whose sides are straight in mel = 1127 ln(1 + f / 700); peak 1.

    Returns:
      float32 [K, F], K = n_fft / 2 + 1; the bin at half the rate counts nowhere. Read-only.
    Source: Kaldi mel-computations.cc; torchaudio compliance.kaldi `get_mel_banks`.
    """

    def scale(hz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log1p(np.asarray(hz) / 700.0)

    points = scale(np.arange(n_fft // 2) * rate_hz / n_fft)
    bank = _triangles(points, np.linspace(scale(low_hz), scale(high_hz), num_mels + 2))
    return _fixed(np.pad(bank, ((0, 1), (0, 0))))


@functools.lru_cache(maxsize=8)
def htk(rate_hz: int, n_fft: int, num_mels: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Filters whose sides are straight in Hz, spaced in mel = 2595 log10(1 + f / 700); peak 1.

    Returns:
      float32 [K, F], K = n_fft / 2 + 1. Read-only.
    Source: torchaudio functional `melscale_fbanks` (mel_scale="htk", norm=None).
    """
    low, high = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (low_hz, high_hz))
    edges_hz = 700.0 * (10.0 ** (np.linspace(low, high, num_mels + 2) / 2595.0) - 1.0)
    return _fixed(_triangles(np.linspace(0.0, rate_hz / 2, n_fft // 2 + 1), edges_hz))


def _fixed(bank_KF: np.ndarray) -> np.ndarray:
    bank_KF = bank_KF.astype(np.float32)
    bank_KF.setflags(write=False)
    return bank_KF


def hann_symmetric(length: int) -> np.ndarray:
    """Hann window that ends as it begins, with 0: float32 [length]."""
    n = np.arange(length)
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * n / (length - 1))).astype(np.float32)


def power_mels(audio_BL: jax.Array, bank_KF: np.ndarray, window: np.ndarray, hop: int) -> jax.Array:
    """Mel power of centred frames, reflected at both ends.

    Args:
      audio_BL: float [B, L], L > n_fft / 2.
      bank_KF: filters over n_fft / 2 + 1 bins.
      window: [W], W <= n_fft; zeros on both sides fill it up to n_fft.
    Returns:
      float32 [B, T, F], T = 1 + L // hop.
    Source: torch.stft(center=True, pad_mode="reflect"), squared.
    """
    n_fft = 2 * (bank_KF.shape[0] - 1)
    left = (n_fft - len(window)) // 2
    padded = np.pad(window, (left, n_fft - len(window) - left))
    x = jnp.pad(audio_BL.astype(jnp.float32), ((0, 0), (n_fft // 2,) * 2), mode="reflect")
    spectrum_BTK = jnp.fft.rfft(mel.frames(x, n_fft, hop) * padded[None, None])
    power_BTK = jnp.square(spectrum_BTK.real) + jnp.square(spectrum_BTK.imag)
    return jnp.einsum("btk,kf->btf", power_BTK, bank_KF, precision=jax.lax.Precision.HIGHEST)
