"""CAVP: shapes, unit features, pooling, configuration."""

import compiled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diff_foley.models import cavp
from foley_jax.runtime import network as network_lib

TINY = {
    "embed_dim": 6,
    "video": {"depths": (1, 1), "width": 4, "inflate": (False, True), "stem": "patch4"},
    "audio": {"channels": [4, 4, 8, 8, 8], "stem": "patch4", "num_mels": 64, "dropout": 0.0},
}


@pytest.fixture(scope="module")
def model():
    return compiled.build(lambda keys: cavp.from_config(TINY, rngs=keys))


def _random(*shape):
    return jnp.asarray(np.random.default_rng(0).random(shape), jnp.float32)


def test_the_logit_scale_starts_as_in_clip():
    model = network_lib.shapes(lambda keys: cavp.from_config(TINY, rngs=keys))
    assert model.logit_scale.shape == ()
    np.testing.assert_allclose(np.exp(cavp.LOGIT_SCALE_INIT), 1 / 0.07)


@pytest.mark.slow
def test_row_norm_takes_the_common_direction_away():
    model = compiled.build(lambda keys: cavp.from_config({**TINY, "row_norm": True}, rngs=keys))
    frames, mel = _random(4, 4, 16, 16, 3), _random(4, 64, 64)

    def features(model):
        return (
            model.encode_video(frames, normalize=False, train=True),
            model.encode_spec(mel, normalize=False, train=True),
        )

    for side, norm in zip(compiled.run(model, features)[0], (model.video_norm, model.spec_norm)):
        np.testing.assert_allclose(side.mean((0, 1)), norm.bias[...], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("side,shape", [("video", (2, 8, 16, 16, 3)), ("spec", (2, 64, 128))])
def test_rows_and_their_pooling(model, side, shape):
    def all_forms(model, x):
        encode = model.encode_video if side == "video" else model.encode_spec
        return encode(x), encode(x, normalize=False), encode(x, pool=True)

    (unit, raw, pooled), _ = compiled.run(model, all_forms, _random(*shape))
    assert unit.shape == (2, 8, 6)  # both sides: four a second
    np.testing.assert_allclose(jnp.linalg.norm(unit, axis=-1), 1.0, rtol=1e-5)
    largest = raw.max(1)  # before normalising
    want = largest / jnp.linalg.norm(largest, axis=-1, keepdims=True)
    np.testing.assert_allclose(pooled, want, rtol=1e-5)


def test_unit_rows_of_zeros_are_zeros_with_a_finite_gradient():
    zeros = jnp.zeros((2, 3))
    np.testing.assert_array_equal(cavp.unit_features(zeros), zeros)
    assert np.isfinite(jax.grad(lambda x: cavp.unit_features(x).sum())(zeros)).all()


def test_rows_are_float32_in_half_precision():
    model = compiled.build(lambda keys: cavp.from_config(TINY, dtype="bfloat16", rngs=keys))
    features, _ = compiled.run(model, lambda m, x: m.encode_video(x), _random(1, 2, 16, 16, 3))
    assert features.dtype == jnp.float32
    np.testing.assert_allclose(jnp.linalg.norm(features, axis=-1), 1.0, rtol=1e-5)
    assert model.logit_scale.dtype == jnp.float32


def test_the_default_is_the_official_size():
    model = network_lib.shapes(lambda keys: cavp.from_config(cavp.default_config(), rngs=keys))
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert count == 113_406_593


def test_a_misspelt_field_is_named():
    with pytest.raises(ValueError, match="has no field widht"):
        cavp.from_config({**TINY, "video": {"widht": 4}}, rngs=nnx.Rngs(0))
