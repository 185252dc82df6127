"""librosa's onsets of known strikes."""

import numpy as np
import pytest

from foley_jax.media import audio_peaks


def _strikes(starts_s, rate_hz, seconds=3.0):
    audio = np.zeros(int(seconds * rate_hz))
    for start_s in starts_s:
        n = np.arange(len(audio) - int(start_s * rate_hz))
        noise = np.random.default_rng(len(n)).normal(size=len(n))
        audio[len(audio) - len(n) :] += 0.3 * np.exp(-n / (0.1 * rate_hz)) * noise
    return audio


@pytest.mark.slow
def test_strikes_are_found_within_a_frame():
    starts = [0.5, 1.1, 2.0]
    audio = _strikes(starts, audio_peaks.RATE_HZ)
    for delta in (None, 0.3):
        found = audio_peaks.onset_times(audio, delta=delta)
        np.testing.assert_allclose(found, starts, atol=512 / audio_peaks.RATE_HZ)
    np.testing.assert_allclose(np.round(found * 22050) % 512, 0)


def test_delta_drops_weak_strikes():
    audio = _strikes([0.5, 2.0], audio_peaks.RATE_HZ)
    audio[: int(1.2 * audio_peaks.RATE_HZ)] *= 1e-3
    assert len(audio_peaks.onset_times(audio, delta=0.3)) < len(audio_peaks.onset_times(audio))


def test_silence_has_none():
    assert audio_peaks.onset_times(np.zeros(22050)).size == 0


def test_unusable_audio_is_refused():
    with pytest.raises(ValueError, match="expected"):
        audio_peaks.onset_times(np.zeros((2, 100)))
    with pytest.raises(ValueError, match="finite"):
        audio_peaks.onset_times(np.full(100, np.nan))
