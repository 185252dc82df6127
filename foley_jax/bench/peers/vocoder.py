"""Mel to audio in torch: `foley_jax.vocoders.griffin_lim` by torch's own transforms.

B batch, T frames, F mel bins, K frequency bins.
"""

from typing import Any

import numpy as np


def griffin_lim(
    magnitude_BKT: Any, phase_BKT: Any, *, n_fft: int, hop: int, iterations: int, momentum: float
) -> Any:
    """Fast Griffin-Lim from given phases: float32 [B, (T - 1) * hop]."""
    import torch

    window = torch.hann_window(n_fft, device=magnitude_BKT.device)
    options = {"n_fft": n_fft, "hop_length": hop, "window": window}
    length = (magnitude_BKT.shape[-1] - 1) * hop
    keep = momentum / (1.0 + momentum)
    direction = torch.polar(torch.ones_like(phase_BKT), phase_BKT)
    previous = torch.zeros_like(direction)
    for _ in range(iterations):
        audio = torch.istft(magnitude_BKT * direction, length=length, **options)
        rebuilt = torch.stft(audio, pad_mode="reflect", return_complex=True, **options)
        direction = rebuilt - keep * previous
        direction = direction / (direction.abs() + 1e-16)
        previous = rebuilt
    return torch.istft(magnitude_BKT * direction, length=length, **options)


def mel_to_stft(mel_BFT: Any, basis_FK: np.ndarray, *, iterations: int) -> Any:
    """Non-negative least squares by FISTA: linear mel amplitudes -> magnitudes [B, K, T]."""
    import torch

    rate = float(1.0 / np.linalg.norm(basis_FK.astype(np.float64), 2) ** 2)
    inverse = np.linalg.pinv(basis_FK.astype(np.float64)).astype(np.float32)
    basis, inverse = (torch.tensor(a, device=mel_BFT.device) for a in (basis_FK, inverse))
    x = ahead = (inverse @ mel_BFT).clamp(min=0.0)
    weight = 1.0
    for _ in range(iterations):
        new = (ahead - rate * (basis.T @ (basis @ ahead - mel_BFT))).clamp(min=0.0)
        new_weight = 0.5 * (1.0 + (1.0 + 4.0 * weight**2) ** 0.5)
        ahead = new + (weight - 1.0) / new_weight * (new - x)
        x, weight = new, new_weight
    return x


def audio_of_log_mel(
    mel_BFT: Any, basis_FK: np.ndarray, *, n_fft: int, hop: int, inversion: int, iterations: int
) -> Any:
    """Log-mels in [0, 1] to audio, from random phases, as the official notebook starts."""
    import torch

    amplitude = 10.0 ** (5.0 * mel_BFT.float() - 4.0)
    magnitude = mel_to_stft(amplitude, basis_FK, iterations=inversion)
    phase = 2.0 * np.pi * torch.rand_like(magnitude)
    return griffin_lim(magnitude, phase, n_fft=n_fft, hop=hop, iterations=iterations, momentum=0.99)
