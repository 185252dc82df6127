"""Mels at chosen frames are those of the whole audio clips."""

import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.media import mel, specs


@pytest.mark.slow
@pytest.mark.parametrize("hop", [16, 20])  # one divides the window of 64 samples, one does not
@pytest.mark.parametrize("length", [400, 407])
def test_chosen_frames_equal_those_of_the_whole_audio(hop, length):
    spec = specs.AudioSpec(n_fft=64, hop=hop, num_mels=8, fmin_hz=0.0)
    audio = np.random.default_rng(0).standard_normal((2, 3, length)).astype(np.float32)
    count = spec.num_frames(length)
    whole = mel.log_mel(audio, spec)  # [B, P, F, count]
    joined = jnp.concatenate([whole[:, p] for p in range(3)], axis=-1)
    ends = [0, count - 1, count, 2 * count - 1, 2 * count, 3 * count - 1]
    frame_BT = np.array([ends, ends[::-1]], np.int32)
    got = mel.log_mel_at(audio, frame_BT, spec)
    want = np.take_along_axis(np.asarray(joined), frame_BT[:, None], axis=-1)
    np.testing.assert_allclose(got, want, atol=1e-6)
