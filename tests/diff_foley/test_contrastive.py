"""The contrastive loss against the official one, and the retrieval counts by hand."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diff_foley.models import contrastive

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens" / "diff_foley" / "contrastive_loss.npz"
ATOL = 1e-5  # float32 sums of 144 logits up to 100


@pytest.mark.parametrize("case", ["a", "b"])
def test_loss_and_gradients_are_the_official_ones(case):
    golden = np.load(GOLDEN)
    num_videos, num_clips, scale, weight = golden[f"{case}/meta_nvid_nclip_scale_weight"]
    video, audio = golden[f"{case}/video_features"], golden[f"{case}/spec_features"]
    assert len(video) == num_videos * num_clips

    def loss(video, audio, log_scale):
        return contrastive.contrastive_loss(
            video, audio, jnp.exp(log_scale), int(num_clips), float(weight)
        )

    value_and_grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    (total, metrics), grads = value_and_grad(video, audio, jnp.float32(np.log(scale)))
    got = {
        "total_loss": total,
        "extra_contrast_loss": metrics["semantic"],
        "intra_contrast_loss": metrics["temporal"],
        "grad_video": grads[0],
        "grad_spec": grads[1],
        "grad_log_logit_scale": grads[2],
    }
    worst = {}
    for name, value in got.items():
        want = golden[f"{case}/{name}"].reshape(np.shape(value))
        worst[name] = float(np.abs(value - want).max())
    print(case, worst)
    assert max(worst.values()) <= ATOL, worst


@pytest.mark.slow
def test_the_loss_does_not_depend_on_how_the_batch_is_laid_out():
    rng = np.random.default_rng(0)
    features = [rng.standard_normal((24, 16)).astype(np.float32) for _ in range(2)]
    fn = jax.jit(lambda v, a: contrastive.contrastive_loss(v, a, jnp.float32(1.0), 3)[0])
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    one, eight = fn(*features), fn(*(jax.device_put(x, spread) for x in features))
    np.testing.assert_allclose(one, eight, rtol=1e-6)


def test_temporal_term_sees_only_the_clips_of_one_video():
    features = jnp.eye(4)
    _, metrics = contrastive.contrastive_loss(features, features, jnp.float32(5.0), 2)
    # 2x2 blocks with 5 on the diagonal and 0 beside it
    np.testing.assert_allclose(metrics["temporal"], np.log(1 + np.exp(-5.0)), rtol=1e-5)
    np.testing.assert_allclose(metrics["semantic"], np.log(1 + 3 * np.exp(-5.0)), rtol=1e-5)


def test_recall_counts_ranks():
    target = np.eye(4)
    query = np.array([[3, 0, 0, 0], [2, 1, 0, 0], [3, 2, 1, 0], [4, 3, 2, 1]])  # ranks 0 1 2 3
    assert contrastive.recall_at_k(query, target, (1, 2, 3, 9)) == {1: 0.25, 2: 0.5, 3: 0.75, 9: 1}


def test_constant_rows_find_nothing():
    features = np.ones((5, 3))
    assert contrastive.recall_at_k(features, features, (1,)) == {1: 0.0}
    assert contrastive.temporal_accuracy(features[None], features[None]) == 0.0


def test_temporal_accuracy_counts_clips():
    video = np.stack([np.eye(3), np.eye(3)])
    audio = np.stack([np.eye(3), np.eye(3)[[1, 0, 2]]])  # two of six swapped
    assert contrastive.temporal_accuracy(video, audio) == pytest.approx(4 / 6)


def test_errors_name_what_came():
    features = jnp.ones((5, 2))
    with pytest.raises(ValueError, match="5 features do not divide into videos of 3"):
        contrastive.contrastive_loss(features, features, jnp.float32(1), 3)
    with pytest.raises(ValueError, match=r"expected equal \[N, D\]"):
        contrastive.contrastive_loss(features, features[:4], jnp.float32(1), 1)


def test_moment_loss_asks_for_the_same_moment():
    """Closed form: orthogonal features give log(sum exp) - own; shuffled in time they cost more."""
    eye_BTD = jnp.eye(6).reshape(2, 3, 6)
    loss = contrastive.moment_loss(eye_BTD, eye_BTD, jnp.float32(4.0))
    np.testing.assert_allclose(loss, np.log(np.exp(4.0) + 5) - 4.0, rtol=1e-6)
    late = contrastive.moment_loss(eye_BTD, jnp.roll(eye_BTD, 1, axis=1), jnp.float32(4.0))
    np.testing.assert_allclose(late, np.log(np.exp(4.0) + 5), rtol=1e-6)


def test_moment_loss_needs_one_of_each_side():
    with pytest.raises(ValueError, match="one of each per moment"):
        contrastive.moment_loss(jnp.ones((2, 3, 4)), jnp.ones((2, 2, 4)), jnp.float32(1.0))


def test_the_finer_side_is_averaged_over_the_moments_of_the_coarser():
    # three frames to an audio feature; the third one's last frame is missing
    video_BTD = jnp.eye(8)[None]
    audio_BTD = jnp.eye(8)[None, :3]
    video, audio = contrastive.same_moments(video_BTD, audio_BTD, 1 / 12, 0.25)
    np.testing.assert_array_equal(audio, audio_BTD[:, :2])
    want = np.zeros((1, 2, 8))
    want[0, 0, :3] = want[0, 1, 3:6] = 3**-0.5
    np.testing.assert_allclose(video, want, atol=1e-6)
    # moments that begin within a frame take their share of it: 12 frames to 8 features
    video, _ = contrastive.same_moments(video_BTD, audio_BTD, 1 / 12, 1 / 8)
    np.testing.assert_allclose(video[0, 0, :3], np.float32([1, 0.5, 0]) / 1.25**0.5, rtol=1e-5)
    np.testing.assert_allclose(video[0, 1, :3], np.float32([0, 0.5, 1]) / 1.25**0.5, rtol=1e-5)


def test_finer_audio_is_averaged_over_frames_and_equal_counts_stay():
    audio_BTD = jnp.eye(4)[None]
    video, audio = contrastive.same_moments(audio_BTD[:, :2], audio_BTD, 0.5, 0.25)
    np.testing.assert_allclose(audio[0, 1], np.float32([0, 0, 1, 1]) / 2**0.5, rtol=1e-6)
    np.testing.assert_array_equal(video, audio_BTD[:, :2])
    # hop 256: 3.9 features a second beside 4 frames, as many in a clip
    same = contrastive.same_moments(video, audio, 0.25, 0.256)
    assert same[0] is video and same[1] is audio


def test_clips_without_a_shared_moment_are_refused():
    with pytest.raises(ValueError, match="share no whole moment of 0.25 s"):
        contrastive.same_moments(jnp.ones((1, 2, 4)), jnp.ones((1, 1, 4)), 0.08, 0.25)
