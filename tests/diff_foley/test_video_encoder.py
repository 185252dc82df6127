"""SlowOnly: the factored convolutions are the 3-D ones, frames see what they should."""

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diff_foley import video_encoder

TINY = {"depths": (1, 1, 1, 1), "width": 4}


def _frames(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).random(shape), jnp.float32)


def _conv3d(x_BTHWC, kernel_thwIO, stride):
    kt, kh, kw = kernel_thwIO.shape[:3]
    return lax.conv_general_dilated(
        x_BTHWC,
        kernel_thwIO,
        (1, stride, stride),
        [(k // 2, k // 2) for k in (kt, kh, kw)],
        dimension_numbers=("NTHWC", "THWIO", "NTHWC"),
    )


@pytest.mark.parametrize(
    "kernel,temporal,stride",
    [(3, True, 1), (3, False, 1), (3, False, 2), (1, False, 2), (7, False, 2)],
)
def test_factored_convolution_is_the_3d_convolution(kernel, temporal, stride):
    layer = video_encoder.ConvNorm(
        3, 5, kernel=kernel, stride=stride, temporal=temporal, rngs=nnx.Rngs(0)
    )
    layer.bn.mean[...] = jnp.arange(5.0)
    layer.bn.var[...] = jnp.arange(1.0, 6.0)
    x = _frames(2, 4, 9, 8, 3)
    spatial = 1 if temporal else kernel
    weight = layer.conv.kernel[...].reshape(kernel if temporal else 1, spatial, spatial, 3, 5)
    mean, var = (s[...].reshape(1, 1, 1, 1, 5) for s in (layer.bn.mean, layer.bn.var))
    want = (_conv3d(x, weight, stride) - mean) / jnp.sqrt(var + 1e-5)
    got = layer(x.reshape(8, 9, 8, 3), 4, train=False)
    np.testing.assert_allclose(got.reshape(want.shape), want, atol=1e-5)


@pytest.mark.parametrize("stem,side", [("conv7", 32), ("patch4", 16)])
def test_one_feature_per_frame(stem, side):
    encoder = video_encoder.SlowOnly(**TINY, stem=stem, rngs=nnx.Rngs(0))
    out = encoder(_frames(2, 5, side, side, 3))
    assert out.shape == (2, 5, encoder.out_dim) == (2, 5, 4 * 8 * 4)
    assert out.dtype == jnp.float32


def test_a_frame_reaches_exactly_as_far_as_the_temporal_convolutions():
    encoder = video_encoder.SlowOnly(**TINY, stem="patch4", rngs=nnx.Rngs(0))
    x = _frames(1, 9, 16, 16, 3)
    changed = encoder(x.at[:, 4].set(0.0)) != encoder(x)
    # two temporal convolutions of three frames: two frames to either side
    np.testing.assert_array_equal(changed[0].any(-1), [abs(t - 4) <= 2 for t in range(9)])


def test_training_moves_the_batch_statistics_by_a_tenth():
    encoder = video_encoder.SlowOnly(**TINY, stem="patch4", rngs=nnx.Rngs(0))
    x = _frames(2, 3, 16, 16, 3)
    stem = encoder.conv1
    blocks = x.reshape(6, 4, 4, 4, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(6, 4, 4, 48)
    mean = (blocks @ stem.conv.kernel[...]).mean((0, 1, 2))
    encoder(x, train=True)
    np.testing.assert_allclose(stem.bn.mean[...], 0.1 * mean, rtol=1e-4, atol=1e-6)


def test_gradients_are_finite_and_reach_every_parameter():
    encoder = video_encoder.SlowOnly(**TINY, stem="patch4", rngs=nnx.Rngs(0))
    graphdef, params, rest = nnx.split(encoder, nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    x = _frames(2, 3, 16, 16, 3)

    @jax.jit
    @jax.grad
    def gradient(params):
        return nnx.merge(graphdef, params, rest)(x, train=True).std()

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(params)):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_compute_type_is_the_one_asked_for():
    encoder = video_encoder.SlowOnly(**TINY, stem="patch4", dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert encoder(_frames(1, 2, 16, 16, 3)).dtype == jnp.bfloat16
    assert encoder.conv1.conv.kernel.dtype == jnp.float32


def test_errors_name_what_came():
    with pytest.raises(ValueError, match="known stems: conv7, patch4"):
        video_encoder.SlowOnly(stem="patch3", rngs=nnx.Rngs(0))
    encoder = video_encoder.SlowOnly(**TINY, stem="patch4", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"expected \[B, T, H, W, 3\]"):
        encoder(_frames(2, 16, 16, 3))
    with pytest.raises(ValueError, match="4x4"):
        encoder(_frames(1, 2, 18, 16, 3))
