"""The bridge between two mel front ends, and the neural vocoder around a generator."""

import filled
import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from foley_jax.media import mel, specs
from foley_jax.vocoders import bigvgan
from foley_jax.vocoders import griffin_lim as vocoder_lib
from foley_jax.vocoders import neural as vocoder

OURS = specs.AudioSpec(hop=250)
THEIRS = specs.AudioSpec(**bigvgan.CONFIGS["bigvgan_base_22khz_80band"]["mel"])
WIDE = specs.AudioSpec(**bigvgan.CONFIGS["bigvgan_v2_22khz_80band_256x"]["mel"])


def _direct(audio_L, spec):
    """BigVGAN's own mel of a waveform at its rate, [T, F]; NumPy."""
    reach = (spec.n_fft - spec.hop) // 2
    x = np.pad(audio_L.astype(np.float64), reach, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(x, spec.n_fft)[:: spec.hop]
    magnitude = np.abs(np.fft.rfft(windows * mel.hann(spec.n_fft)))
    basis = librosa.filters.mel(
        sr=spec.sample_rate_hz,
        n_fft=spec.n_fft,
        n_mels=spec.num_mels,
        fmin=spec.fmin_hz,
        fmax=spec.fmax_hz,
    )
    return np.log(np.maximum(np.sqrt(magnitude**2 + 1e-9) @ basis.T, 1e-5))


def _chirp(rate_hz, seconds=2.0):
    """Up from 300 to 4500 Hz, 0.3 s of silence, then a tone of 1000 Hz from 1.5 s on."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    sweep = np.sin(2 * np.pi * (300 * t + 0.5 * 3500 * t**2))
    tone = np.sin(2 * np.pi * 1000 * t)
    return (0.3 * np.where(t < 1.2, sweep, np.where(t < 1.5, 0.0, tone))).astype(np.float32)


@pytest.fixture(scope="module")
def both():
    """Bridged and direct mels of the chirp, [T, F] over their common frames."""
    ours = mel.log_mel(_chirp(OURS.sample_rate_hz)[None], OURS)
    got = np.asarray(vocoder.bridge(ours, OURS, THEIRS))[0]
    want = _direct(_chirp(THEIRS.sample_rate_hz), THEIRS)
    assert got.shape == (vocoder.bridged_frames(ours.shape[-1], OURS, THEIRS), 80)
    assert abs(len(got) - len(want)) <= 1
    count = min(len(got), len(want))
    return got[:count], want[:count]


def test_energy_is_at_the_right_frequency(both):
    got, want = both
    steady = want.max(1) > want.max() - 1.0
    off = np.abs(got.argmax(1) - want.argmax(1))[steady]
    assert steady.sum() > 100 and off.max() <= 1 and (off > 0).mean() < 0.2


def test_energy_is_at_the_right_time(both):
    got, want = (np.exp(a).sum(1) for a in both)
    for level in (got, want):
        level /= level.max()
    begin = round(1.35 * THEIRS.sample_rate_hz / THEIRS.hop)  # inside the silence
    onset = [begin + int(np.argmax(level[begin:] > 0.05)) for level in (got, want)]
    end = [begin - int(np.argmax(level[begin::-1] > 0.05)) for level in (got, want)]
    assert abs(onset[0] - onset[1]) <= 1 and abs(end[0] - end[1]) <= 1, (onset, end)


def test_strength_is_right(both):
    got, want = both
    strong = want > want.max() - 3.0  # within 26 dB of the loudest
    error = (got - want)[strong]
    # the skirts of a moving tone differ with the length of the window in seconds
    assert abs(error.mean()) < 0.2 and np.abs(error).mean() < 0.4


def test_noise_has_the_right_strength():
    rng = np.random.default_rng(0)
    white = rng.standard_normal(2 * 22050) * 0.1
    low = librosa.resample(white, orig_sr=22050, target_sr=16000)
    got = vocoder.bridge(mel.log_mel(low[None].astype(np.float32), OURS), OURS, THEIRS)
    error = np.asarray(got)[0, 4:-4, 10:70].mean(0) - _direct(white, THEIRS)[4:-4, 10:70].mean(0)
    assert abs(error.mean()) < 0.2 and np.abs(error).max() < 0.4


def test_silence_is_their_floor_and_so_is_what_we_cannot_know():
    silence = vocoder.bridge(jnp.zeros((1, 128, 20)), OURS, THEIRS)
    np.testing.assert_allclose(silence, np.log(1e-5), rtol=1e-6)
    loud = np.asarray(vocoder.bridge(jnp.full((1, 128, 20), 0.8), OURS, WIDE))
    edges = librosa.mel_frequencies(82, fmin=0.0, fmax=11025.0)
    unknown = edges[:-2] >= 8000.0
    assert unknown.any()
    np.testing.assert_allclose(loud[..., unknown], np.log(1e-5), rtol=1e-6)
    assert loud[..., (edges[:-2] > 200) & (edges[2:] < 7500)].min() > np.log(1e-3)


def test_bridge_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="1024 and 2048"):
        other = specs.AudioSpec(n_fft=2048)
        vocoder.bridge(jnp.zeros((1, 128, 8)), OURS, other)
    with pytest.raises(ValueError, match="expected 128 bins"):
        vocoder.bridge(jnp.zeros((1, 80, 8)), OURS, THEIRS)


def _generator(num_mels, rates):
    fields = {
        "num_mels": num_mels,
        "upsample_rates": rates,
        "upsample_kernel_sizes": [2 * r - r % 2 for r in rates],
        "upsample_initial_channel": 8,
        "resblock_kernel_sizes": (3,),
        "resblock_dilation_sizes": ((1,),),
    }
    return filled.module(lambda keys: bigvgan.from_config(fields, rngs=keys))


def test_public_generator_is_a_vocoder():
    model = {"mel": dict(bigvgan.CONFIGS["bigvgan_base_22khz_80band"]["mel"])}
    neural = vocoder.NeuralVocoder.public(_generator(80, (16, 16)), model)
    mels = jnp.asarray(np.random.default_rng(0).random((2, 128, 33)), jnp.float32)
    audio = neural(mels, OURS)
    assert neural.sample_rate_hz(OURS) == 22050
    assert audio.shape == (2, 44 * 256)  # 32 frames of 250 / 16000 s are 43.07 of theirs
    assert np.isfinite(audio).all() and np.abs(audio).max() <= 1.0


@pytest.mark.slow
def test_generator_of_our_own_mels_needs_no_bridge():
    spec = specs.AudioSpec(hop=25, num_mels=8)
    generator = _generator(8, (5, 5))
    neural = vocoder.NeuralVocoder(generator, spec, scale="unit")
    mels = jnp.asarray(np.random.default_rng(0).random((1, 8, 12)), jnp.float32)
    want = jax.jit(lambda x: generator(x))(2 * mels.swapaxes(1, 2) - 1)
    np.testing.assert_allclose(neural(mels, spec), want, atol=1e-5)
    assert neural.sample_rate_hz(spec) == 16000
    with pytest.raises(ValueError, match="was trained on"):
        neural(mels, specs.AudioSpec(hop=20, num_mels=8))
    with pytest.raises(ValueError, match="25 samples of 8 mel bins"):
        vocoder.NeuralVocoder(generator, specs.AudioSpec(hop=20, num_mels=8))


def test_griffin_lim_has_the_same_interface():
    mels = mel.log_mel(_chirp(16000, 0.5)[None], OURS)
    audio = vocoder_lib.GriffinLim(iterations=2)(mels, OURS)
    assert audio.shape == (1, (mels.shape[-1] - 1) * 250)
    assert vocoder_lib.GriffinLim().sample_rate_hz(OURS) == 16000
