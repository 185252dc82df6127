"""Onsets as librosa finds them, for the protocols that are defined by its defaults."""

import librosa
import numpy as np

RATE_HZ = 22050  # librosa's own; its frame lengths and thresholds suppose it


def onset_times(
    audio_L: np.ndarray, sample_rate_hz: int = RATE_HZ, *, delta: float | None = None
) -> np.ndarray:
    """Times of onsets by librosa's `onset_strength` and `onset_detect`.

    Args:
      audio_L: mono audio, float [L].
      sample_rate_hz: of the audio; the official scripts load at `RATE_HZ`.
      delta: how far a peak stands above its surroundings; None is librosa's 0.07.
    Returns:
      float64 [num_onsets], seconds, ascending, multiples of 512 samples; none in silence.
    Raises:
      ValueError: not one axis, or values that are not finite.
    Source: librosa.onset; AV-Align av_align.py `detect_audio_peaks`; CondFoleyGen
      predict_onset.py `detect_onset` (delta 0.3).
    """
    audio = np.asarray(audio_L, np.float32)
    if audio.ndim != 1 or not np.isfinite(audio).all():
        raise ValueError(f"audio of shape {audio.shape}, expected [L] of finite values")
    if not audio.any():
        return np.zeros(0)
    strength = librosa.onset.onset_strength(y=audio, sr=sample_rate_hz)
    settings = {} if delta is None else {"delta": delta}
    return librosa.onset.onset_detect(
        onset_envelope=strength, sr=sample_rate_hz, units="time", **settings
    ).astype(np.float64)
