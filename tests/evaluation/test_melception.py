"""Melception against the public PyTorch module."""

import librosa
import network_goldens
import numpy as np
import pytest

from foley_jax.evaluation.networks import melception
from foley_jax.interop import fill, registry

PREFIX = "public/melception:"


# the plain case, whose outputs hardly depend on the input, is in tests/slow
@pytest.mark.slow
def test_network_matches_the_public_module():
    errors = network_goldens.melception("melception_g", slice(1, 2))
    print(errors)
    assert len(errors) == 6
    assert max(errors.values()) <= network_goldens.NETWORK_LIMIT, errors
    # the recorded rows differ by far more than the limit: the input is not ignored
    want = network_goldens.golden("melception_g")[0]["2048"]
    assert network_goldens.distance(want[:1], want[1:]) > 50 * network_goldens.NETWORK_LIMIT


def test_conversion_is_strict():
    state = dict(network_goldens.plain("melception", PREFIX))
    del state["Mixed_6b.branch7x7_2.bn.running_var"]
    state["Mixed_6b.branch7x7_9.conv.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(fill.ConversionError) as error:
        registry.from_state_dict("melception", state)
    for part in ("Mixed_6b/branch7x7_2/bn/var", "Mixed_6b.branch7x7_9.conv.weight"):
        assert part in str(error.value)


def test_too_small_mels_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 22, 848\), expected .* at least 23 x 23"):
        melception.Melception.__call__(None, np.zeros((1, 22, 848), np.float32))


@pytest.mark.slow
def test_mels_are_the_middle_of_ten_seconds_standardised(tmp_path):
    rng = np.random.default_rng(0)
    numbers = np.stack([rng.uniform(0.2, 0.6, 80), rng.uniform(0.1, 0.3, 80)], axis=1)
    np.savetxt(tmp_path / "statistics.txt", numbers, fmt="%0.8f")
    statistics = melception.load_statistics(tmp_path / "statistics.txt")
    short = 0.1 * rng.standard_normal((1, 22050)).astype(np.float32)
    got = np.asarray(melception.standard_mels(short, statistics))
    assert got.shape == (1, 80, 848) and got.dtype == np.float32
    whole = np.pad(short, ((0, 0), (0, 220500 - 22050)))
    # librosa as SpecVQGAN calls it
    spectrum = np.abs(librosa.stft(whole[0], n_fft=1024, hop_length=256, pad_mode="reflect"))
    basis = librosa.filters.mel(sr=22050, n_fft=1024, fmin=125, fmax=7600, n_mels=80)
    decibels = 20 * np.log10(np.maximum(1e-5, basis @ spectrum)) - 20
    want = np.clip((decibels + 100) / 100, 0, 1)[:, :860][:, 6:854]
    error = got[0] * numbers[:, 1:] + numbers[:, :1] - want
    np.testing.assert_allclose(error, 0.0, atol=1e-5)
    # what comes after 10 s is not heard
    long = np.pad(whole, ((0, 0), (0, 9500)), constant_values=0.5)
    np.testing.assert_array_equal(melception.standard_mels(long, statistics), got)


def test_wrong_statistics_are_refused(tmp_path):
    np.savetxt(tmp_path / "s.txt", np.zeros((80, 2)))
    with pytest.raises(ValueError, match="a positive deviation for every mel bin"):
        melception.load_statistics(tmp_path / "s.txt")
    np.savetxt(tmp_path / "s.txt", np.ones((64, 2)))
    with pytest.raises(ValueError, match=r"\(64, 2\), expected \(80, 2\)"):
        melception.load_statistics(tmp_path / "s.txt")
