"""Feature extraction keeps the official grouping."""

import compiled
from flax import nnx
import jax
import numpy as np
import pytest

from foley_jax.diff_foley.models import cavp
from foley_jax.diff_foley.sampling import features

TINY = {
    "embed_dim": 6,
    "video": {"depths": (1,), "width": 4, "inflate": (True,), "stem": "patch4"},
    "audio": {"channels": (4, 4, 4, 4, 4), "stem": "patch4", "num_mels": 64},
}


@pytest.fixture(scope="module")
def encode_fn():
    graphdef, state = nnx.split(compiled.build(lambda keys: cavp.from_config(TINY, rngs=keys)))
    state = nnx.to_pure_dict(state)
    run = jax.jit(lambda state, x: features.encode_frames(nnx.merge(graphdef, state), x))
    return lambda frames: run(state, frames)


def _video(num_frames, seed=0):
    shape = (num_frames, 8, 8, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_rows_are_unit_rows_one_per_frame(encode_fn):
    video_features = features.extract(encode_fn, _video(5))
    assert video_features.shape == (5, 6) and video_features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(video_features, axis=-1), 1.0, rtol=1e-5)


def test_groups_do_not_see_each_other_and_short_ones_are_not_padded(encode_fn):
    video = _video(9)
    video_features = features.extract(encode_fn, video, group_frames=4)
    parts = [features.extract(encode_fn, video[a:b]) for a, b in ((0, 4), (4, 8), (8, 9))]
    np.testing.assert_allclose(video_features, np.concatenate(parts), atol=1e-6)
    assert (
        np.abs(video_features - features.extract(encode_fn, video)).max() > 1e-3
    )  # grouping matters


def test_a_batch_is_its_videos(encode_fn):
    videos = np.stack([_video(5, seed) for seed in range(3)])
    video_features = features.extract_batch(encode_fn, videos, group_frames=3)
    for video, want in zip(videos, video_features):
        np.testing.assert_allclose(
            features.extract(encode_fn, video, group_frames=3), want, atol=1e-6
        )


def test_group_bounds():
    assert features.group_bounds(33) == [(0, 33)]
    assert features.group_bounds(81) == [(0, 40), (40, 80), (80, 81)]
    with pytest.raises(ValueError, match="expected at least 1"):
        features.group_bounds(4, 0)


def test_errors_name_what_came(encode_fn):
    with pytest.raises(ValueError, match="expected uint8"):
        features.extract(encode_fn, _video(2).astype(np.float32))
    with pytest.raises(ValueError, match="no frames"):
        features.extract(encode_fn, _video(2)[:0])


def test_seamless_rows_are_those_of_one_piece(encode_fn):
    """The official groups differ at their borders; the seamless ones nowhere."""
    video = _video(23)
    whole = features.extract(encode_fn, video)
    seamless = features.extract_seamless(encode_fn, video, group_frames=5, reach_frames=1)
    np.testing.assert_allclose(seamless, whole, atol=1e-5)
    grouped = features.extract(encode_fn, video, group_frames=5)
    assert np.abs(grouped - whole).max() > 1e-3
    short = features.extract_seamless(encode_fn, video[:4], group_frames=5, reach_frames=1)
    np.testing.assert_array_equal(short, features.extract(encode_fn, video[:4]))


def test_a_seamless_batch_is_its_videos(encode_fn):
    videos, groups = np.stack([_video(23, seed) for seed in range(2)]), (5, 1)
    options = dict(zip(("group_frames", "reach_frames"), groups))
    together = features.extract_seamless_batch(encode_fn, videos, **options)
    for video, want in zip(videos, together, strict=True):
        alone = features.extract_seamless(encode_fn, video, **options)
        np.testing.assert_allclose(alone, want, atol=1e-6)
