"""The demo's encoders and its vocoder, in closed form."""

import filled
from flax import nnx
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mmaudio, mmaudio_vae
from foley_jax.mmaudio import mel, rates
from foley_jax.mmaudio.models import small_encoders
from foley_jax.mmaudio.sampling import vocoder
from foley_jax.training import task as task_lib

RATES = rates.RATES["16k"]


class Means(nnx.Module):
    """Features that are the mean colours of frames, of unit length."""

    def encode_video(self, frames_BTHWC, normalize=True):
        means = frames_BTHWC.mean((2, 3))
        return means / jnp.linalg.norm(means, axis=-1, keepdims=True)


def test_a_segment_is_every_other_frame_and_an_image_stands_alone():
    rng = np.random.default_rng(0)
    frames = rng.uniform(0.1, 1.0, (2, 16, 4, 4, 3)).astype(np.float32)
    encoders = small_encoders.SmallEncoders(Means())
    want = frames.mean((2, 3))
    want = 3**0.5 * want / np.linalg.norm(want, axis=-1, keepdims=True)
    np.testing.assert_allclose(encoders(2 * frames - 1), want[:, ::2], rtol=1e-5)
    np.testing.assert_allclose(encoders.encode_image(frames[0]), want[0], rtol=1e-5)


def test_words_have_features_of_their_own_wherever_they_stand():
    ids_BT = small_encoders.Words()(["Glass, wood", "wood", "", "a b c d e f g h glass"])
    assert ids_BT.shape == (4, 8) and ids_BT.dtype == np.int32
    assert ids_BT[0, 1] == ids_BT[1, 0] and ids_BT[0, 0] != ids_BT[0, 1]
    assert not ids_BT[0, 2:].any() and not ids_BT[2].any() and ids_BT[3].all()
    found = small_encoders.SmallEncoders(Means()).encode_text(jnp.asarray(ids_BT))
    assert found.shape == (4, 8, 32) and not found[2].any()
    np.testing.assert_allclose(np.linalg.norm(found[3], axis=-1), 1.0, rtol=1e-5)
    kinds = ["two", "objects", "glass", "metal", "wood", "skin", "rotor"]
    assert len(set(small_encoders.Words()([" ".join(kinds)])[0])) == len(kinds) + 1


def test_the_demo_fits_its_encoders_and_its_autoencoder():
    config, own = mmaudio.get_config("demo"), mmaudio_vae.get_config("demo")
    task = task_lib.resolve(config)
    assert config.audio == own.audio and task.rates == task_lib.resolve(own).rates
    shapes = task.transform(train=True).shapes
    assert shapes["text_TD"] == (small_encoders.TOKENS, small_encoders.TEXT_DIM)
    assert shapes["mean_NC"] == (250, own.model.autoencoder.latent_dim)
    clip, sync = small_encoders.videos(64, 64)
    assert (clip.fps, sync.fps, sync.width) == (8, 25, 64)


@pytest.mark.slow
def test_griffin_lim_brings_back_mels_where_they_were():
    """A tone from 0.5 s on: its mel again, its beginning within a frame."""
    time = np.arange(16384) / 16000
    audio = np.where(time >= 0.5, 0.5 * np.sin(2 * np.pi * 900 * time), 0.0).astype(np.float32)
    mel_FT = filled.jit(lambda x: mel.log_mel(x, RATES))(audio)
    griffin_lim = vocoder.GriffinLim(RATES)
    made = np.asarray(griffin_lim(mel_FT[None], RATES.audio))[0]
    assert made.shape == audio.shape
    again = np.asarray(filled.jit(lambda x: mel.log_mel(x, RATES))(made))
    steady = slice(36, 60)  # frames, behind the beginning and before the end
    wanted_FT, made_FT = np.asarray(mel_FT)[:, steady], again[:, steady]
    loud = wanted_FT > wanted_FT.max() - 1  # the tone's own bands
    # 0.07; half or twice the amplitude would be 0.3
    assert np.abs(made_FT - wanted_FT)[loud].mean() < 0.1
    level = np.sqrt(np.convolve(made**2, np.ones(64) / 64, "same"))
    begins = time[np.argmax(level > 0.5 * level.max())]
    assert abs(begins - 0.5) < 0.016
    with pytest.raises(ValueError, match="the mels are"):
        griffin_lim(mel_FT[None], rates.RATES["44k"].audio)
