"""The mel autoencoder's parts in closed form, its shapes and refusals, and the vocoder's."""

import filled
import jax
import jax.numpy as jnp
import mmaudio_goldens as official
import numpy as np
import pytest

from foley_jax.mmaudio.models import magnitude_preserving as mp
from foley_jax.mmaudio.models import mel_autoencoder, mel_vocoder

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def model():
    return filled.module(
        lambda rngs: mel_autoencoder.MelAutoencoder(num_mels=6, latent_dim=2, width=8, rngs=rngs)
    )


def test_layers_keep_the_size_of_what_passes():
    x = jax.random.normal(jax.random.key(0), (4, 64, 128))
    y = jax.random.normal(jax.random.key(1), x.shape)
    kernel = mp.normalised_kernel(3.0 * jax.random.normal(jax.random.key(2), (128, 128)))

    def deviation(x):
        return float(jnp.sqrt(jnp.square(x).mean()))

    assert deviation(mp.normalise(5.0 * x)) == pytest.approx(1.0, abs=1e-3)
    assert deviation(mp.silu(x)) == pytest.approx(1.0, abs=0.02)
    assert deviation(mp.add(x, y)) == pytest.approx(1.0, abs=0.02)
    assert deviation(x @ kernel) == pytest.approx(1.0, abs=0.02)


@pytest.mark.slow
def test_lengths_halve_and_double(model):
    mel = jax.random.normal(jax.random.key(3), (2, 6, 10))
    mean, logvar, decoded = official.run(
        model, lambda model, mel: (*model.encode(mel), model.decode(model.encode(mel)[0])), mel
    )
    assert mean.shape == logvar.shape == (2, 5, 2) and decoded.shape == mel.shape
    assert all(np.isfinite(x).all() for x in (mean, logvar, decoded))


@pytest.mark.slow
def test_mels_are_normalised_by_the_statistics_of_their_bands(model):
    mel = jax.random.normal(jax.random.key(4), (1, 6, 8))
    shift = np.linspace(-2, 1, 6, dtype=np.float32).reshape(1, 6, 1)
    scale = np.linspace(1, 3, 6, dtype=np.float32).reshape(1, 6, 1)

    def with_statistics(model, mel, mean, std):
        model.data_mean[...], model.data_std[...] = mean, std
        latent, _ = model.encode(mel * std + mean)
        return latent, (model.decode(latent) - mean) / std

    zero, one = np.zeros_like(shift), np.ones_like(scale)
    want = official.run(model, with_statistics, mel, zero, one)
    got = official.run(model, with_statistics, mel, shift, scale)
    for a, b in zip(got, want):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_wrong_shapes_are_refused(model):
    with pytest.raises(ValueError, match="expected .batch, 6 bands, an even"):
        model.encode(jnp.zeros((1, 6, 7)))
    with pytest.raises(ValueError, match="expected .batch, length, 2"):
        model.decode(jnp.zeros((1, 6, 7)))


@pytest.mark.slow
def test_the_vocoder_takes_bands_first():
    fields = {"upsample_rates": (2,), "upsample_kernel_sizes": (4,), "num_mels": 3}
    vocoder = filled.module(
        lambda rngs: mel_vocoder.MelVocoder(**fields, upsample_initial_channel=4, rngs=rngs)
    )
    assert official.run(vocoder, lambda m, x: m(x), np.ones((2, 3, 5), np.float32)).shape == (2, 10)
    with pytest.raises(ValueError, match="expected .batch, 3 bands, frames"):
        vocoder(jnp.zeros((2, 5, 3)))
