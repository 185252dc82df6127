"""Clips made large: one noise per clip, frames in batches."""

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.mm_diffusion.models import super_resolution
from foley_jax.mm_diffusion.sampling import upscaling


def toy(x, low, time_B):
    """Looks at both images and the step; the variance half must not be read."""
    big = jnp.repeat(jnp.repeat(low, 2, 1), 2, 2)
    eps = 0.8 * x - 0.5 * big + 0.1 * jnp.sin(x + time_B.reshape(-1, 1, 1, 1) / 1000)
    return jnp.concatenate([eps, jnp.full_like(eps, jnp.nan)], axis=-1)


def clips(b=2, t=3):
    return np.random.default_rng(0).uniform(-1, 1, (b, t, 4, 4, 3)).astype(np.float32)


def make(low, key=0, model=toy, **options):
    options = {"factor": 2, "num_steps": 3, **options}
    return np.asarray(
        filled.jit(lambda low, key: upscaling.upscale(model, low, key, **options))(
            low, jax.random.key(key)
        )
    )


@pytest.mark.slow
def test_batches_of_frames_change_nothing():
    low = clips()
    want = make(low)
    assert want.shape == (2, 3, 8, 8, 3) and want.dtype == np.float32
    assert np.isfinite(want).all() and np.abs(want).max() <= 1.0
    for frames_at_once in (1, 2, 4, 6):  # 4 does not divide 6 frames
        got = make(low, frames_at_once=frames_at_once)
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_frames_of_a_clip_share_their_noise_and_clips_do_not():
    low = np.zeros_like(clips())
    made = make(low)
    np.testing.assert_array_equal(made[:, 1:], made[:, :1].repeat(2, 1))
    assert np.abs(made[0] - made[1]).max() > 0.1
    assert np.abs(made - make(low, key=1)).max() > 0.1


def test_every_frame_gets_its_own_small_image():
    low = clips()
    made = make(low)
    swapped = make(low[:, ::-1])
    np.testing.assert_allclose(made[:, ::-1], swapped, atol=1e-6)
    assert np.abs(made - swapped).max() > 0.1


def test_with_the_network():
    fields = {"model_channels": 32, "channel_mult": (1,), "num_res_blocks": 1}
    model = filled.module(lambda keys: super_resolution.SuperResolution(**fields, rngs=keys))
    graphdef, state = nnx.split(model)

    @filled.jit
    def run(state, low, key):
        model = nnx.merge(graphdef, state)
        return upscaling.upscale(model, low, key, num_steps=2, frames_at_once=2)

    made = np.asarray(run(nnx.to_pure_dict(state), clips(1, 3), jax.random.key(0)))
    assert made.shape == (1, 3, 16, 16, 3)
    assert np.isfinite(made).all() and made.std() > 0.05


def test_errors_say_what_came():
    with pytest.raises(ValueError, match=r"\(2, 4, 4, 3\), expected \[B, T, H, W, C\]"):
        make(clips()[:, 0])
    with pytest.raises(ValueError, match="frames_at_once is 0"):
        make(clips(), frames_at_once=0)
