"""Resampling as torchaudio does it."""

import math
from pathlib import Path

import numpy as np
import pytest

from foley_jax.media import hann_resample

# outputs of torchaudio 2.11's `_apply_sinc_resample_kernel` on 700 samples of noise
GOLDEN = np.load(Path(__file__).parents[1] / "goldens/media/hann_resample.npz")
RATES = [name for name in GOLDEN.files if name != "audio"]


@pytest.mark.parametrize("rates", RATES)
def test_it_is_torchaudios(rates):
    from_hz, to_hz = map(int, rates.split("_"))
    found = hann_resample.resample(GOLDEN["audio"], from_hz, to_hz)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, GOLDEN[rates], rtol=0, atol=2e-7)  # float32 sums there


@pytest.mark.parametrize("length", [0, 1, 440, 441, 442])
def test_any_length_is_resampled(length):
    found = hann_resample.resample(np.ones(length, np.float32), 44100, 16000)
    assert len(found) == math.ceil(length * 160 / 441)


def test_tones_keep_their_height_and_equal_rates_the_audio():
    time_s = np.arange(44100) / 44100
    tone = np.sin(2 * np.pi * 1000 * time_s)
    found = hann_resample.resample(tone, 44100, 16000)
    want = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    assert np.abs(found - want)[100:-100].max() < 0.01
    np.testing.assert_array_equal(hann_resample.resample(tone, 8000, 8000), tone.astype("f4"))


def test_what_is_no_audio_is_refused():
    with pytest.raises(ValueError, match="positive rates"):
        hann_resample.resample(np.zeros((2, 5)), 44100, 16000)
    with pytest.raises(ValueError, match="from 0 to 16000"):
        hann_resample.resample(np.zeros(5), 0, 16000)
