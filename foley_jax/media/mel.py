"""Log-mel front end of Diff-Foley, differentiable and equal to librosa.

L audio samples, T frames, F mel bins, K = n_fft // 2 + 1 frequency bins.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import librosa
import numpy as np

from foley_jax.media.specs import AudioSpec

PadMode = Literal["reflect", "constant"]
FLOOR = 1e-5  # smallest linear mel amplitude; the log scale reaches 0 only at 1e-4


@functools.lru_cache(maxsize=8)
def mel_basis(spec: AudioSpec, basis_rate_hz: int | None = None) -> np.ndarray:
    """Mel filters on the Slaney scale with Slaney area norm.

    Args:
      basis_rate_hz: rate the filters believe the sound has; default the true one. The official
        notebook inverts 16 kHz mels with a 22050 Hz basis, which lowers every pitch by 27 %.
    Returns:
      float32 [F, K], read-only.
    Source: librosa.filters.mel(htk=False, norm="slaney").
    """
    basis = librosa.filters.mel(
        sr=basis_rate_hz or spec.sample_rate_hz,
        n_fft=spec.n_fft,
        n_mels=spec.num_mels,
        fmin=spec.fmin_hz,
        fmax=spec.fmax_hz,
    )
    basis = np.asarray(basis, np.float32)
    basis.setflags(write=False)
    return basis


def hann(n_fft: int) -> np.ndarray:
    """Periodic Hann window, float32 [n_fft]."""
    n = np.arange(n_fft)
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * n / n_fft)).astype(np.float32)


def frames(padded_L: jax.Array, n_fft: int, hop: int) -> jax.Array:
    """Overlapping windows of a signal that is already padded.

    Args:
      padded_L: [..., L], L >= n_fft.
    Returns:
      [..., 1 + (L - n_fft) // hop, n_fft].
    """
    lead, length = padded_L.shape[:-1], padded_L.shape[-1]
    count = 1 + (length - n_fft) // hop
    parts = -(-n_fft // hop)
    blocks = count + parts - 1
    missing = max(0, blocks * hop - length)
    x = jnp.pad(padded_L, [(0, 0)] * len(lead) + [(0, missing)])[..., : blocks * hop]
    x = x.reshape(*lead, blocks, hop)  # [..., L] -> [..., blocks, hop]
    # frame i is blocks i, i + 1, ... : slices instead of a gather, whose gradient is a scatter
    joined = jnp.concatenate([x[..., p : p + count, :] for p in range(parts)], axis=-1)
    return joined[..., :n_fft]


def stft(audio_BL: jax.Array, spec: AudioSpec, *, pad_mode: PadMode = "reflect") -> jax.Array:
    """Centred short-time Fourier transform with a periodic Hann window.

    Args:
      audio_BL: float [..., L].
    Returns:
      complex64 [..., T, K], T = 1 + L // hop.
    Raises:
      ValueError: reflection needs more than n_fft / 2 samples; unknown pad mode.
    """
    half = spec.n_fft // 2
    if pad_mode not in ("reflect", "constant"):
        raise ValueError(f"pad_mode is {pad_mode!r}, expected 'reflect' or 'constant'")
    if pad_mode == "reflect" and audio_BL.shape[-1] <= half:
        raise ValueError(
            f"audio has {audio_BL.shape[-1]} samples, expected more than {half} "
            f"({half / spec.sample_rate_hz:.3f} s) to reflect it at its ends"
        )
    pads = [(0, 0)] * (audio_BL.ndim - 1) + [(half, half)]
    padded = jnp.pad(audio_BL.astype(jnp.float32), pads, mode=pad_mode)
    windows = frames(padded, spec.n_fft, spec.hop)
    window = hann(spec.n_fft).reshape((1,) * (windows.ndim - 1) + (-1,))
    return jnp.fft.rfft(windows * window)


def log_mel(audio_BL: jax.Array, spec: AudioSpec, *, pad_mode: PadMode = "reflect") -> jax.Array:
    """Log-mel spectrogram in [0, 1]: clip(0.8 + 0.2 * log10(max(mel, 1e-5)), 0, 1).

    Args:
      audio_BL: float [..., L] in about [-1, 1] at `spec.sample_rate_hz`, any leading axes.
      pad_mode: "reflect" as the official front end (librosa 0.8), or "constant" (newer librosa).
    Returns:
      float32 [..., num_mels, 1 + L // hop]; 0 is a mel amplitude of 1e-4 or less, 1 is 10.
    Raises:
      ValueError: too few samples to reflect; unknown pad mode.
    Source: Diff-Foley data_preprocess/wav2spec.py.
    """
    amplitude_TK = jnp.abs(stft(audio_BL, spec, pad_mode=pad_mode))
    mel = jnp.einsum(
        "fk,...tk->...ft", mel_basis(spec), amplitude_TK, precision=jax.lax.Precision.HIGHEST
    )
    return jnp.clip(0.8 + 0.2 * jnp.log10(jnp.maximum(mel, FLOOR)), 0.0, 1.0)


def amplitude(mel_BFT: jax.Array) -> jax.Array:
    """Linear mel amplitude of a log-mel: 10^(5 x - 4), the inverse of `log_mel`'s scale.

    Source: Diff-Foley demo_util.py `inverse_op`.
    """
    return jnp.power(10.0, 5.0 * mel_BFT.astype(jnp.float32) - 4.0)
