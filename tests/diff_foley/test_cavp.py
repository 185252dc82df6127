"""CAVP: shapes, unit rows, pooling, configuration."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diff_foley import cavp

TINY = {
    "embed_dim": 6,
    "video": {"depths": (1, 1), "width": 4, "inflate": (False, True), "stem": "patch4"},
    "audio": {"channels": [4, 4, 8, 8, 8], "stem": "patch4", "num_mels": 64, "dropout": 0.0},
}


@pytest.fixture(scope="module")
def model():
    return cavp.from_config(TINY, rngs=nnx.Rngs(0))


def _random(*shape):
    return jnp.asarray(np.random.default_rng(0).random(shape), jnp.float32)


def test_rows_of_both_sides_meet_at_four_a_second(model):
    video = model.encode_video(_random(2, 8, 16, 16, 3))
    audio = model.encode_spec(_random(2, 64, 128))
    assert video.shape == audio.shape == (2, 8, 6)
    for rows in (video, audio):
        np.testing.assert_allclose(jnp.linalg.norm(rows, axis=-1), 1.0, rtol=1e-5)


def test_pooling_takes_the_largest_before_normalising(model):
    frames, mel = _random(2, 4, 16, 16, 3), _random(2, 64, 64)
    for encode, x in ((model.encode_video, frames), (model.encode_spec, mel)):
        rows = encode(x, normalize=False)
        np.testing.assert_allclose(encode(x, normalize=False, pool=True), rows.max(1), rtol=1e-6)
        want = rows.max(1) / jnp.linalg.norm(rows.max(1), axis=-1, keepdims=True)
        np.testing.assert_allclose(encode(x, pool=True), want, rtol=1e-5)


def test_unit_rows_of_zeros_are_zeros_with_a_finite_gradient():
    zeros = jnp.zeros((2, 3))
    np.testing.assert_array_equal(cavp.unit_rows(zeros), zeros)
    assert np.isfinite(jax.grad(lambda x: cavp.unit_rows(x).sum())(zeros)).all()


def test_rows_are_float32_in_half_precision():
    model = cavp.from_config(TINY, dtype="bfloat16", rngs=nnx.Rngs(0))
    rows = model.encode_video(_random(1, 2, 16, 16, 3))
    assert rows.dtype == jnp.float32
    np.testing.assert_allclose(jnp.linalg.norm(rows, axis=-1), 1.0, rtol=1e-5)
    assert model.logit_scale.dtype == jnp.float32


def test_the_default_is_the_official_size():
    model = nnx.eval_shape(lambda: cavp.from_config(cavp.default_config(), rngs=nnx.Rngs(0)))
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert count == 113_406_593


def test_a_misspelt_field_is_named():
    with pytest.raises(ValueError, match="has no field widht"):
        cavp.from_config({**TINY, "video": {"widht": 4}}, rngs=nnx.Rngs(0))
