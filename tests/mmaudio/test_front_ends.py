"""What MMAudio's networks are given: mels, images, resampled audio, lengths."""

import json
from pathlib import Path

from goldens import fill
import jax
import numpy as np
import pytest

from foley_jax.media import fitting, kaiser_resample
from foley_jax.mmaudio import mel as mel_lib
from foley_jax.mmaudio import rates as rates_lib

FOLDER = Path(__file__).parents[1] / "goldens" / "mmaudio"
MEL, PICTURES, RESAMPLE = (np.load(FOLDER / f"{n}.npz") for n in ("mel", "pictures", "resample"))
NUMBERS = json.loads((FOLDER / "numbers.json").read_text())
PREFIX = "public/"


@pytest.mark.parametrize("name", ["16k", "44k"])
def test_mels_are_the_official_ones(name):
    rates = rates_lib.RATES[name]
    audio = fill.waveform(PREFIX, 1.0, 0, rates.audio.sample_rate_hz)
    front_end = jax.jit(lambda audio_BL: mel_lib.log_mel(audio_BL, rates))
    mel, loud = front_end(np.stack([audio, 3 * audio]))
    np.testing.assert_allclose(mel, MEL[f"{name}/mel"][0], rtol=0, atol=5e-5)
    np.testing.assert_allclose(loud[:, ::4], MEL[f"{name}/mel_clipped"][0], rtol=0, atol=5e-5)


def test_silence_is_the_floor():
    silent = np.zeros((1, 4096), np.float32)
    found = [mel_lib.log_mel(silent, rates).max() for rates in rates_lib.RATES.values()]
    # sqrt(1e-9) a bin, through filters of area one
    assert found[0] < -4.4 and found[1] < -10.0


def test_too_short_audio_has_no_mel():
    with pytest.raises(ValueError, match="expected more than 384"):
        mel_lib.log_mel(np.zeros((1, 384), np.float32), rates_lib.RATES["16k"])


def picture(name):
    height, width = {"wide": (90, 160), "tall": (300, 200), "large": (480, 640)}[name]
    rows, columns = -(-height // 10), -(-width // 10)
    blocks = fill.inp(f"mmaudio_picture_{name}", (1, 3, rows, columns), PREFIX, "uniform")
    blocks = blocks.repeat(10, 2).repeat(10, 3)[:, :, :height, :width]
    noise = fill.inp(f"mmaudio_picture_{name}_noise", (1, 3, height, width), PREFIX, "uniform")
    mixed = np.clip(256 * (np.float32(0.8) * blocks + np.float32(0.2) * noise), 0, 255)
    return np.ascontiguousarray(mixed.astype(np.uint8)[0].transpose(1, 2, 0))


@pytest.mark.parametrize("name", ["wide", "tall", "large"])
def test_images_are_fitted_as_officially(name):
    """Pillow differs from torchvision's uint8 resize by one level, rarely two."""
    image = picture(name)
    clip = fitting.fit(image, rates_lib.CLIP_VIDEO)[::6, ::6].astype(int)
    off = np.abs(clip - PICTURES[f"{name}/clip_uint8"][0].transpose(1, 2, 0).astype(int))
    assert off.max() <= 2 and (off > 0).mean() < 0.02
    size = fitting.inner_size(image.shape[:2], rates_lib.SYNC_VIDEO)
    assert list(size) == PICTURES[f"{name}/sync_size_top_left"][:2].tolist()
    sync = fitting.fit(image, rates_lib.SYNC_VIDEO)[::4, ::4] / np.float32(127.5) - 1
    off = np.abs(sync - PICTURES[f"{name}/sync"][0].transpose(1, 2, 0)) * 127.5
    assert off.max() <= 2.01 and (off > 0.01).mean() < 0.02


@pytest.mark.parametrize("pair", [name for name in RESAMPLE.files if "/" not in name])
def test_audio_is_resampled_as_officially(pair):
    from_hz, to_hz = map(int, pair.split("-"))
    found = kaiser_resample.resample(fill.waveform(PREFIX, 0.6, 0, from_hz), from_hz, to_hz)
    assert len(found) == RESAMPLE[f"{pair}/samples"][0]
    cut = np.concatenate([found[:600], found[3000:3400], found[-600:]])
    want = RESAMPLE[pair][0]
    assert np.linalg.norm(cut - want) < 3e-5 * np.linalg.norm(want)


@pytest.mark.parametrize("case", sorted(NUMBERS["lengths"]))
def test_lengths_are_the_official_ones(case):
    name, seconds = case.split()
    found = rates_lib.RATES[name].lengths(float(seconds))
    assert found._asdict() == {
        "latents" if key == "latent" else key: n for key, n in NUMBERS["lengths"][case].items()
    }


def test_less_than_a_segment_is_refused():
    with pytest.raises(ValueError, match=r"0\.6 s, expected at least 0\.64 s"):
        rates_lib.RATES["16k"].lengths(0.6)
