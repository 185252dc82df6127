"""Mel inversion and Griffin-Lim against librosa's results, and the quality of the round trip."""

from pathlib import Path

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from foley_jax.media import mel, specs
from foley_jax.vocoders import griffin_lim

GOLDEN = Path(__file__).parents[1] / "goldens" / "diff_foley" / "audio.npz"
RATE = 16000


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


def strikes(seconds: float, times_s: tuple[float, ...]) -> np.ndarray:
    """Decaying tones at the given times over faint noise."""
    audio = 2e-4 * np.random.default_rng(0).standard_normal(int(seconds * RATE))
    t = np.arange(RATE // 2) / RATE
    tone = np.exp(-20 * t) * (np.sin(2 * np.pi * 620 * t) + 0.5 * np.sin(2 * np.pi * 1711 * t))
    for time_s in times_s:
        at = int(time_s * RATE)
        piece = audio[at : at + len(tone)]
        piece += 0.4 * tone[: len(piece)]
    return audio.astype(np.float32)


def convergence(audio, magnitude, spec):
    made = jnp.abs(mel.stft(audio, spec))
    return float(jnp.linalg.norm(made - magnitude) / jnp.linalg.norm(magnitude))


@pytest.mark.parametrize("rate_hz", [16000, 22050])
def test_inversion_fits_the_mel_better_than_librosa(golden, rate_hz):
    target = golden["inv/mel_amp_frames100_132"]
    spec = specs.AudioSpec()
    linear_TK = griffin_lim.mel_to_stft(target, spec, basis_rate_hz=rate_hz)
    assert linear_TK.shape == (32, 513) and float(linear_TK.min()) >= 0
    made = mel.mel_basis(spec, rate_hz) @ np.asarray(linear_TK).T
    residual = np.linalg.norm(made - target) / np.linalg.norm(target)
    assert residual < golden[f"inv/nnls_relative_residual_sr{rate_hz}"][0]
    assert residual < (0.01 if rate_hz == 16000 else 0.08)  # a mel of the wrong rate has no fit


@pytest.mark.parametrize("hop", [256, 250])
def test_istft_inverts_stft(hop):
    spec = specs.AudioSpec(hop=hop)
    audio = np.random.default_rng(0).standard_normal((2, 4100)).astype(np.float32)
    spectrum = mel.stft(jnp.asarray(audio), spec)
    np.testing.assert_allclose(griffin_lim.istft(spectrum, spec, 4100), audio, atol=1e-5)
    longer = np.asarray(griffin_lim.istft(spectrum, spec, 6000))
    np.testing.assert_allclose(longer[:, :4000], audio[:, :4000], atol=1e-5)
    assert longer.shape == (2, 6000) and not longer[:, 4700:].any()


def test_one_iteration_equals_librosa(golden):
    spec = specs.AudioSpec()
    magnitude = jnp.abs(mel.stft(jnp.asarray(golden["waveform"][:32000]), spec))
    zeros = jnp.zeros_like(magnitude)
    got = griffin_lim.griffin_lim(magnitude, spec, iterations=1, phase_BTK=zeros)
    np.testing.assert_allclose(got, golden["gl/wav_init_none_1iter"], atol=1e-5)


def test_many_iterations_converge_as_librosa(golden):
    # float32 rounding grows with the iterations, so the waveform limit is wider: 4e-4 seen
    spec = specs.AudioSpec()
    magnitude = jnp.abs(mel.stft(jnp.asarray(golden["waveform"][:32000]), spec))
    got = griffin_lim.griffin_lim(magnitude, spec, phase_BTK=jnp.zeros_like(magnitude))
    want = golden["gl/wav_init_none_32iter"]
    assert np.linalg.norm(got - want) / np.linalg.norm(want) < 2e-3
    official = golden["gl/spectral_convergence_init_none"][0]
    assert abs(convergence(got, magnitude, spec) - official) < 1e-5
    random = griffin_lim.griffin_lim(magnitude, spec, key=jax.random.key(0))
    seeds = golden["gl/spectral_convergence_random_seed0_4"]
    assert convergence(random, magnitude, spec) < 1.1 * seeds.max()


def test_phase_gradient_start_is_worth_16_iterations(golden):
    spec = specs.AudioSpec()
    magnitude = jnp.abs(mel.stft(jnp.asarray(golden["waveform"][:32000]), spec))
    start = griffin_lim.griffin_lim(magnitude, spec, iterations=16)
    random = griffin_lim.griffin_lim(magnitude, spec, iterations=32, key=jax.random.key(0))
    assert convergence(start, magnitude, spec) < convergence(random, magnitude, spec)


@pytest.mark.slow
@pytest.mark.parametrize("hop", [256, 250])
def test_round_trip_keeps_the_mel_and_the_attacks(hop):
    spec = specs.AudioSpec(hop=hop)
    times_s = (0.4, 1.15, 1.7)
    audio = strikes(2.5, times_s)
    before = mel.log_mel(jnp.asarray(audio)[None], spec)
    made = griffin_lim.mel_to_audio(before, spec, length=len(audio))
    assert made.shape == (1, len(audio)) and made.dtype == jnp.float32
    after = mel.log_mel(made, spec)
    assert float(jnp.abs(after - before).mean()) < 0.015  # 1.5 dB; 0.012 seen
    level = librosa.feature.rms(y=np.asarray(made[0]), frame_length=64, hop_length=32)[0]
    for time_s in times_s:
        at = int(time_s * RATE / 32)
        rise = 20 * np.log10(level[at : at + 10].max() / level[at - 15 : at - 3].max())
        assert rise > 12.0, (time_s, rise)  # dB over the 24 ms before


def test_pitch_is_true_and_the_official_quirk_is_an_option():
    spec = specs.AudioSpec()
    tone = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    log_mel = mel.log_mel(jnp.asarray(tone)[None], spec)

    def peak_hz(audio):
        return np.argmax(np.abs(np.fft.rfft(np.asarray(audio[0])))) * RATE / audio.shape[1]

    # one mel filter is about 60 Hz wide there
    assert abs(peak_hz(griffin_lim.mel_to_audio(log_mel, spec)) - 1000) < 30
    official = griffin_lim.mel_to_audio(log_mel, spec, basis_rate_hz=22050)
    assert abs(peak_hz(official) - 1000 * 16000 / 22050) < 30


@pytest.mark.slow
def test_batch_items_are_independent_and_default_is_deterministic():
    spec = specs.AudioSpec()
    mels = jax.random.uniform(jax.random.key(0), (3, 128, 12))
    both = griffin_lim.mel_to_audio(mels, spec)
    assert both.shape == (3, 11 * 256)
    np.testing.assert_allclose(both[1:2], griffin_lim.mel_to_audio(mels[1:2], spec), atol=1e-3)
    drawn = griffin_lim.mel_to_audio(mels, spec, key=jax.random.key(1))
    assert not np.allclose(both, drawn, atol=1e-2)


@pytest.mark.slow
def test_silence_stays_quiet_and_gradient_is_finite():
    spec = specs.AudioSpec()
    quiet = griffin_lim.mel_to_audio(jnp.zeros((1, 128, 12)), spec)
    assert float(jnp.abs(quiet).max()) < 1e-2

    def loss(mels):
        return jnp.square(griffin_lim.mel_to_audio(mels, spec, iterations=2)).sum()

    gradient = jax.jit(jax.grad(loss))(jax.random.uniform(jax.random.key(0), (1, 128, 6)))
    assert bool(jnp.isfinite(gradient).all()) and float(jnp.abs(gradient).max()) > 0


def test_errors_say_what_came():
    spec = specs.AudioSpec()
    with pytest.raises(ValueError, match="expected 128 bins"):
        griffin_lim.mel_to_audio(jnp.zeros((1, 80, 12)), spec)
    with pytest.raises(ValueError, match="2 mel frames are 256 samples, expected more than 512"):
        griffin_lim.mel_to_audio(jnp.zeros((1, 128, 2)), spec)
    both = {"key": jax.random.key(0), "phase_BTK": jnp.zeros((8, 513))}
    with pytest.raises(ValueError, match="key and phase_BTK"):
        griffin_lim.griffin_lim(jnp.ones((8, 513)), spec, **both)
