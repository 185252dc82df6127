"""Audio on its way into the model and back."""

import numpy as np
import pytest

from foley_jax.mm_diffusion.sampling import signals


@pytest.mark.parametrize("companding", [0.0, 100.0])
def test_there_and_back(companding):
    audio = np.random.default_rng(0).uniform(-1, 1, (2, 50)).astype(np.float32)
    x = np.asarray(signals.audio_to_model(audio, companding=companding))
    assert x.shape == (2, 50, 1) and np.abs(x).max() <= 1.0
    back = signals.audio_from_model(x, companding=companding)
    np.testing.assert_allclose(back, audio, atol=1e-6)


def test_companding_lifts_quiet_audio():
    x = np.asarray(signals.audio_to_model(np.float32([[0.01, -0.01, 1.0]]), companding=255.0))
    np.testing.assert_allclose(x[0, :, 0], [0.2285, -0.2285, 1.0], atol=1e-4)


def test_pcm_and_pixels():
    clip = signals.to_model(np.uint8([[[[[0, 255, 51]]]]]), np.int16([[-32768, 16384]]))
    np.testing.assert_allclose(clip["video"].ravel(), [-1, 1, -0.6], atol=1e-6)
    np.testing.assert_allclose(np.ravel(clip["audio"]), [-1, 0.5])
