"""The log-mel front end against librosa and the official spectrograms."""

from pathlib import Path

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from foley_jax.media import mel, specs

GOLDEN = Path(__file__).parents[1] / "goldens" / "diff_foley" / "audio.npz"
LIMIT = 2e-5  # absolute; torch.stft in float32 differs from librosa by 3.4e-6


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


@pytest.mark.slow
@pytest.mark.parametrize(("hop", "frames"), [(256, 625), (250, 640)])
def test_equals_official_spectrogram(golden, hop, frames):
    spec = specs.AudioSpec(hop=hop)
    audio = golden["waveform"][:-1]  # the official front end drops the last sample
    got = np.asarray(mel.log_mel(jnp.asarray(audio)[None], spec))
    assert got.shape == (1, 128, frames)
    np.testing.assert_allclose(got[0], golden[f"mel_hop{hop}"], atol=LIMIT, rtol=0)
    zero = np.asarray(mel.log_mel(jnp.asarray(audio), spec, pad_mode="constant"))
    first, last = (golden[f"mel_hop{hop}_constantpad_{end}3"] for end in ("first", "last"))
    np.testing.assert_allclose(zero[:, :3], first, atol=LIMIT, rtol=0)
    np.testing.assert_allclose(zero[:, -3:], last, atol=LIMIT, rtol=0)


def test_basis_equals_official(golden):
    basis = mel.mel_basis(specs.AudioSpec())
    np.testing.assert_allclose(basis[[0, 1, 64, 127]], golden["mel_basis_rows_0_1_64_127"], atol=0)
    np.testing.assert_allclose(basis.sum(1), golden["mel_basis_row_sums"], rtol=1e-6)
    assert not basis.flags.writeable
    assert not np.allclose(basis, mel.mel_basis(specs.AudioSpec(), 22050))


@pytest.mark.slow
@pytest.mark.parametrize("hop", [100, 250, 512, 1024])
def test_stft_equals_librosa_for_any_hop_and_leading_axes(hop):
    spec = specs.AudioSpec(hop=hop)
    audio = np.random.default_rng(0).standard_normal((2, 3, 4001)).astype(np.float32)
    got = np.asarray(mel.stft(jnp.asarray(audio), spec))
    want = librosa.stft(audio, n_fft=1024, hop_length=hop, pad_mode="reflect")
    np.testing.assert_allclose(got, np.swapaxes(want, -1, -2), atol=2e-5)
    assert got.shape[-2] == spec.num_frames(4001)


def test_amplitude_inverts_the_log_scale(golden):
    spec = specs.AudioSpec()
    audio = jnp.asarray(golden["waveform"][:16000])
    linear = np.asarray(jnp.abs(mel.stft(audio, spec)) @ mel.mel_basis(spec).T).T
    back = np.asarray(mel.amplitude(mel.log_mel(audio, spec)))
    inside = (linear > 1e-4) & (linear < 10)
    assert inside.mean() > 0.9
    np.testing.assert_allclose(back[inside], linear[inside], rtol=1e-4)
    np.testing.assert_allclose(mel.amplitude(jnp.array([0.0, 1.0])), [1e-4, 10.0], rtol=1e-5)


@pytest.mark.slow
def test_silence_is_zero_with_finite_gradient():
    spec = specs.AudioSpec()
    silence = jnp.zeros((1, 2000))
    assert float(mel.log_mel(silence, spec).max()) == 0.0
    audio = silence.at[0, 900:].set(jnp.sin(jnp.arange(1100.0)))
    gradient = jax.grad(lambda x: mel.log_mel(x, spec).sum())(audio)
    assert bool(jnp.isfinite(gradient).all()) and float(jnp.abs(gradient).max()) > 0


def test_errors_say_what_came():
    with pytest.raises(ValueError, match="512 samples, expected more than 512"):
        mel.log_mel(jnp.zeros((1, 512)), specs.AudioSpec())
    assert mel.log_mel(jnp.zeros(512), specs.AudioSpec(), pad_mode="constant").shape == (128, 3)
    with pytest.raises(ValueError, match="pad_mode is 'zeros'"):
        mel.log_mel(jnp.zeros((1, 4000)), specs.AudioSpec(), pad_mode="zeros")
