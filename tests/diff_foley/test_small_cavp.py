"""What a small CAVP trained from scratch has beyond the paper: a motion stem and row norms."""

import compiled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diff_foley.models import cavp, video_encoder

SMALL = {
    "embed_dim": 16,
    "row_norm": True,
    "video": {"depths": (0, 1), "width": 4, "inflate": (False, True), "stem": "motion4"},
    "audio": {"channels": (2, 4, 4, 4, 4), "stem": "patch4", "dropout": 0.0},
}


@pytest.fixture(scope="module")
def frames():
    return jax.random.uniform(jax.random.key(1), (1, 3, 16, 16, 3))


def _motion(encoder, frames):
    """The half of the stem that sees changes only, [T, H/4, W/4, width]."""
    out = encoder.apply_stem(frames, train=False)
    return out[..., out.shape[-1] // 2 :]


def test_motion_half_of_the_stem_does_not_see_what_stands_still(frames):
    encoder = video_encoder.SlowOnly((0, 1), 4, (False, True), "motion4", rngs=nnx.Rngs(0))
    encoder.motion.bn.bias[...] = jnp.ones(4)
    still = jnp.repeat(frames[:, :1], 3, axis=1)
    other = jnp.repeat(frames[:, 1:2], 3, axis=1)
    np.testing.assert_array_equal(_motion(encoder, still), _motion(encoder, other))
    assert np.abs(_motion(encoder, frames)[1:] - _motion(encoder, still)[1:]).max() > 0.1


def test_first_frame_of_a_clip_has_no_motion(frames):
    encoder = video_encoder.SlowOnly((0, 1), 4, (False, True), "motion4", rngs=nnx.Rngs(0))
    encoder.motion.bn.bias[...] = jnp.ones(4)
    np.testing.assert_allclose(_motion(encoder, frames)[0], 1.0, atol=1e-6)


def test_row_norm_takes_the_common_direction_away(frames):
    model = compiled.build(lambda keys: cavp.from_config(SMALL, rngs=keys))
    for norm in (model.video_norm, model.spec_norm):
        norm.bias[...] = jnp.zeros_like(norm.bias[...])
    mel = jax.random.uniform(jax.random.key(2), (2, 128, 64))

    def both(model, frames, mel):
        options = {"normalize": False, "train": True}
        return model.encode_video(frames, **options), model.encode_spec(mel, **options)

    for rows in compiled.run(model, both, frames, mel)[0]:
        np.testing.assert_allclose(rows.mean((0, 1)), 0.0, atol=1e-5)


def test_unknown_stem_names_the_known_ones():
    with pytest.raises(ValueError, match="conv7, patch4, motion4"):
        video_encoder.SlowOnly(stem="patch8", rngs=nnx.Rngs(0))
