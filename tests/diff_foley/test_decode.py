"""Mels of any length become audio: true pitch, true length, no audible joins."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diff_foley.sampling import notebook
from foley_jax.media import mel, specs
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.vocoders import decode

RATE = 16000
GOLDENS = Path(__file__).parents[1] / "goldens" / "diff_foley"
SPEC = specs.AudioSpec()


@pytest.fixture(scope="module")
def tone_FT():
    time_s = np.arange(512 * 256) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 1000 * time_s).astype(np.float32)
    return np.asarray(mel.log_mel(jnp.asarray(tone)[None], SPEC))[0][:, :512]


def _pitch_hz(audio, low, high):
    """Mean frequency of the power between two frequencies."""
    power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
    hz = np.fft.rfftfreq(len(audio), 1 / RATE)
    inside = (hz > low) & (hz < high)
    assert power[inside].sum() > 0.9 * power.sum()
    return (power * hz)[inside].sum() / power[inside].sum()


@pytest.mark.slow
def test_default_keeps_a_pitch_of_1_khz(tone_FT):
    audio = decode.vocode([tone_FT], [8 * RATE], SPEC, max_batch=1)[0]
    assert len(audio) == 8 * RATE
    assert abs(_pitch_hz(audio, 500, 1500) - 1000) <= 5


@pytest.mark.slow
def test_official_lowers_it_as_the_notebook_does(tone_FT):
    keys_N = jax.random.split(jax.random.key(0), 3)
    audio = notebook.vocode(np.stack([tone_FT] * 3), 3 * 130816, SPEC, keys_N=keys_N)
    assert len(audio) == 3 * 130816 and np.abs(audio[-100:]).max() > 0  # 8.176 s a window
    with np.load(GOLDENS / "audio.npz") as golden:
        wanted_hz = golden["tone1k/peak_hz_demo22050_eval16000"][0]  # 725.3, random phases
    assert abs(_pitch_hz(audio, 500, 1000) - wanted_hz) <= 1


@pytest.mark.slow
def test_chunks_join_without_a_trace(monkeypatch):
    """Against one run: chunk borders have no more spectral flux than other moments."""
    with np.load(GOLDENS / "audio.npz") as golden:
        mel_FT = golden["mel_hop256"]  # chirps, bursts and noise of 10 s
    monkeypatch.setattr(decode, "CHUNK_FRAMES", 256)
    monkeypatch.setattr(decode, "OVERLAP_FRAMES", 64)
    monkeypatch.setattr(decode, "BATCH_FRAMES", 512)
    audio = decode.vocode([mel_FT, mel_FT[:, :100]], [10 * RATE, RATE], SPEC, max_batch=4)
    assert [len(a) for a in audio] == [10 * RATE, RATE]
    again = np.asarray(mel.log_mel(jnp.asarray(audio[0])[None], SPEC))[0][:, :625]
    flux = np.abs(np.diff(again - mel_FT, axis=1)).mean(0)
    at = np.concatenate([np.arange(s, s + 64) for s in decode._chunk_starts(625)[1:]])
    inside, rest = flux[at], np.delete(flux, at)
    assert np.mean(inside > np.percentile(rest, 95)) <= 0.1
    assert np.abs(again - mel_FT).mean() < 0.03


def test_crossfade_takes_the_quietest_place_and_keeps_loudness():
    rng = np.random.default_rng(0)
    before, after = rng.standard_normal((2, 4000)).astype(np.float32)
    before[2500:2700], after[500:700] = 0.0, 0.0  # both silent here
    out = decode.crossfade(before, after, 2000, 100)
    assert len(out) == 6000
    np.testing.assert_array_equal(out[:2500], before[:2500])
    np.testing.assert_array_equal(out[2700:], after[700:])
    noise = rng.standard_normal((2, 64000)).astype(np.float32)
    faded = decode.crossfade(noise[0], noise[1], 0, 64000)
    power = [np.mean(part**2) for part in np.split(faded, 4)]
    np.testing.assert_allclose(power, 1.0, atol=0.05)  # a plain linear fade would lose half


def test_chunks_cover_any_length():
    for frames in (1, 4096, 4097, 8064, 8065, 37500):
        starts = decode._chunk_starts(frames)
        assert starts[-1] + decode.CHUNK_FRAMES >= frames
        assert frames <= decode.CHUNK_FRAMES or frames - starts[-1] > decode.OVERLAP_FRAMES
    assert [decode._rounded(n) for n in (1, 512, 513, 1024, 1025, 4096)] == [
        256,
        512,
        768,
        1024,
        2048,
        4096,
    ]


def test_devices_share_a_batch_and_change_nothing():
    """Not a bit: what the audio clips of Griffin-Lim begin with may jump by a rounding."""
    spec = specs.AudioSpec(n_fft=64, hop=16, num_mels=8)
    mels = list(np.random.default_rng(0).random((5, 8, 256), dtype=np.float32))
    lengths, mesh = [4000] * 5, mesh_lib.local_mesh(4)
    alone = decode.vocode(mels, lengths, spec, max_batch=1)
    through = decode.OverDevices(decode.GRIFFIN_LIM, mesh)
    shared = decode.vocode(mels, lengths, spec, max_batch=1, through=through, num_devices=4)
    np.testing.assert_array_equal(shared, alone)
