"""Neural vocoders found by folder: trained here or converted, checked against the mels."""

import dataclasses

import filled
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ldm as ldm_config
from configs import vocoder as vocoder_config
from foley_jax import convert
from foley_jax.inference import load_foley
from foley_jax.media import specs
from foley_jax.training.checkpointing import run_directory
from foley_jax.vocoders import bigvgan, decode

SMALL = {"upsample_initial_channel": 16, "resblock_kernel_sizes": (3,)}
SMALL |= {"resblock_dilation_sizes": ((1,),)}


@pytest.fixture
def demo():
    return ldm_config.get_config("demo")


def _trained(folder, **audio):
    config = vocoder_config.get_config("demo")
    config.model.vocoder.update(SMALL)
    config.audio.update(audio)
    filled.save_run(folder, config)


@pytest.mark.slow
def test_a_trained_vocoder_makes_audio_of_the_asked_length(tmp_path, demo):
    _trained(tmp_path / "run")
    vocoder = load_foley.vocoder_of(tmp_path / "run", demo)
    mel_FT = np.random.default_rng(0).random((128, 40)).astype(np.float32)
    audio = specs.AudioSpec(**demo.audio)
    (made,) = decode.vocode([mel_FT], [9000], audio, max_batch=1, through=vocoder)
    assert made.shape == (9000,) and np.isfinite(made).all() and made.std() > 0


def test_a_vocoder_of_another_front_end_is_refused(tmp_path, demo):
    _trained(tmp_path / "run", fmax_hz=7000.0)
    with pytest.raises(ValueError, match="7000.0.*train the vocoder with the model's"):
        load_foley.vocoder_of(tmp_path / "run", demo)


@pytest.mark.slow
def test_a_converted_generator_runs_through_the_bridge_at_our_rate(tmp_path, demo):
    name = "bigvgan/base_22khz_80band"
    fields = {**bigvgan.CONFIGS["bigvgan_base_22khz_80band"], **SMALL}
    module = filled.module(lambda keys: bigvgan.from_config(fields, rngs=keys))
    convert.save(name, module, tmp_path / "converted", **SMALL)
    vocoder = load_foley.vocoder_of(tmp_path / "converted", demo)
    audio = specs.AudioSpec(**demo.audio)
    assert vocoder.sample_rate_hz(audio) == 22050
    mel_FT = np.full((128, 64), 0.5, np.float32)
    (made,) = decode.vocode([mel_FT], [16000], audio, max_batch=1, through=vocoder)
    assert made.shape == (16000,)
    assert np.abs(made[-3000:]).max() > 0  # resampled, not padded: audio up to the end


def test_a_folder_that_holds_no_vocoder_is_named(tmp_path, demo):
    run_directory.save_model(
        tmp_path / "run", config={"task": "cavp", "model": {}}, params={"a": jnp.ones(1)}, rest={}
    )
    with pytest.raises(ValueError, match="holds 'cavp'; wanted here is a 'vocoder' run"):
        load_foley.vocoder_of(tmp_path / "run", demo)


@dataclasses.dataclass(frozen=True)
class _Tone:
    """A vocoder of another rate that always makes a 440 Hz tone."""

    rate_hz: int

    def sample_rate_hz(self, spec):
        return self.rate_hz

    def __call__(self, mel_BFT, spec):
        time_s = jnp.arange(round(mel_BFT.shape[-1] * spec.frame_s * self.rate_hz)) / self.rate_hz
        return jnp.sin(2 * jnp.pi * 440.0 * time_s)[None].repeat(len(mel_BFT), axis=0)


@pytest.mark.parametrize("rate_hz", [16000, 22050, 48000])
def test_audio_of_any_rate_keeps_its_pitch(demo, rate_hz):
    audio = specs.AudioSpec(**demo.audio)
    mel_FT = np.zeros((128, 128), np.float32)
    (made,) = decode.vocode([mel_FT], [16000], audio, max_batch=1, through=_Tone(rate_hz))
    spectrum = np.abs(np.fft.rfft(made))
    assert spectrum.argmax() == 440  # one second: bins are Hz


def test_two_encoders_of_one_name_are_not_guessed(tmp_path, monkeypatch):
    """The wrong one of the right width would only audio worse."""
    monkeypatch.chdir(tmp_path)
    run, named = tmp_path / "there" / "ldm", "here/cavp"
    beside = tmp_path / "there" / "cavp"
    with pytest.raises(FileNotFoundError, match="neither there nor at .*--cavp"):
        load_foley.resolve_beside(run, named)
    beside.mkdir(parents=True)
    (beside / "config.json").write_text("{}")
    assert load_foley.resolve_beside(run, named) == beside
    (tmp_path / "here").symlink_to(tmp_path / "there")
    assert load_foley.resolve_beside(run, named).resolve() == beside  # the same under two names
    (tmp_path / "here").unlink()
    (tmp_path / named).mkdir(parents=True)
    (tmp_path / named / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="--cavp=DIR"):
        load_foley.resolve_beside(run, named)
