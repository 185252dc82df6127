"""CLIP's towers: unit rows, causal text, which images fit."""

import filled
import jax
import jax.numpy as jnp
import mmaudio_goldens as official
import numpy as np
import pytest

from foley_jax.mmaudio.models import clip

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def model():
    return filled.module(
        lambda rngs: clip.Clip(
            embed_dim=12,
            image_size=6,
            patch_size=3,
            vision_width=16,
            vision_layers=1,
            vision_heads=2,
            vocabulary=11,
            text_length=5,
            text_width=8,
            text_layers=2,
            text_heads=2,
            rngs=rngs,
        )
    )


def test_rows_have_unit_length(model):
    images = jax.random.uniform(jax.random.key(0), (2, 6, 6, 3))
    ids = jnp.asarray([[9, 1, 2, 10, 0], [9, 10, 0, 0, 0]])

    def outputs(model, images, ids):
        rows = model.encode_image(images), model.encode_text(ids)
        return rows, (model.encode_image(images, False), model.encode_text(ids, False))

    rows, raw = official.run(model, outputs, images, ids)
    assert rows[0].shape == (2, 12) and rows[1].shape == (2, 5, 8)
    for a, b in zip(rows, raw):
        np.testing.assert_allclose(np.linalg.norm(a, axis=-1), 1.0, atol=1e-6)
        length = np.linalg.norm(b, axis=-1, keepdims=True)
        np.testing.assert_allclose(a * length, b, atol=1e-5)
        assert np.abs(length - 1).min() > 1e-3


def test_a_token_sees_only_those_before_it(model):
    ids = np.asarray([[9, 1, 2, 3, 10], [9, 1, 2, 4, 10]])
    a, b = official.run(model, lambda model, ids: model.encode_text(ids), ids)
    np.testing.assert_allclose(a[:3], b[:3], atol=1e-6)
    assert np.abs(a[3:] - b[3:]).max(1).min() > 1e-3


def test_pixels_beyond_the_last_patch_are_left_out(model):
    images = np.random.default_rng(0).random((1, 7, 8, 3)).astype(np.float32)
    a = official.run(model, lambda model, x: model.encode_image(x), images)
    b = official.run(model, lambda model, x: model.encode_image(x), images[:, :6, :6])
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_wrong_shapes_are_refused(model):
    with pytest.raises(ValueError, match=r"9 patches, expected 4: 6 pixels"):
        model.encode_image(jnp.zeros((1, 9, 9, 3)))
    with pytest.raises(ValueError, match=r"expected \[batch, 5\]"):
        model.encode_text(jnp.zeros((1, 4), jnp.int32))
