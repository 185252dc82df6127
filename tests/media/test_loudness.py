"""Loudness: the standard's own anchor, its coefficients, its gates."""

import numpy as np
import pytest

from foley_jax.media import loudness


def _sine(rate_hz, seconds=2.0, hz=997.0, level=1.0):
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)


@pytest.mark.parametrize("rate_hz", [16000, 44100, 48000])
def test_a_sine_of_997_hz_has_the_standards_loudness(rate_hz):
    assert loudness.integrated(_sine(rate_hz), rate_hz) == pytest.approx(-3.01, abs=0.06)


def test_the_filter_at_48_khz_is_that_of_the_standard():
    """BS.1770-4, tables 1 and 2: the first samples of the impulse response."""
    impulse = np.zeros(8)
    impulse[0] = 1.0
    b, a = (
        [1.53512485958697, -2.69169618940638, 1.19839281085285],
        [-1.69065929318241, 0.73248077421585],
    )
    c, d = [1.0, -2.0, 1.0], [-1.99004745483398, 0.99007225036621]
    expected = impulse
    for zeros, poles in ((b, a), (c, d)):
        out = np.zeros(8)
        for n in range(8):
            out[n] = sum(z * expected[n - i] for i, z in enumerate(zeros) if n >= i)
            out[n] -= sum(p * out[n - 1 - i] for i, p in enumerate(poles) if n >= 1 + i)
        expected = out
    np.testing.assert_allclose(loudness.k_weighted(impulse, 48000), expected, atol=1e-6)


def test_a_gain_moves_loudness_by_as_much_and_pauses_do_not_count():
    loud = _sine(16000, 4.0, level=0.5)
    base = loudness.integrated(loud, 16000)
    assert loudness.integrated(loud / 10, 16000) == pytest.approx(base - 20, abs=1e-6)
    paused = np.concatenate([loud, np.zeros(16000 * 8)])
    # blocks at the edge hold both: less than half a unit
    assert loudness.integrated(paused, 16000) == pytest.approx(base, abs=0.5)


def test_silence_and_short_clips():
    assert loudness.integrated(np.zeros(16000), 16000) == -np.inf
    assert loudness.integrated(np.zeros(0), 16000) == -np.inf
    assert np.isfinite(loudness.integrated(_sine(16000, 0.1), 16000))
    with pytest.raises(ValueError, match="expected finite samples"):
        loudness.integrated(np.full(16000, np.nan), 16000)
    with pytest.raises(ValueError, match="2000 Hz"):
        loudness.integrated(_sine(16000), 2000)
