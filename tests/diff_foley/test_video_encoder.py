"""SlowOnly: the factored convolutions are the 3-D ones, frames see what they should."""

import compiled
import filled
from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diff_foley.models import video_encoder
from foley_jax.runtime import flops

TINY = {"depths": (1, 1, 1), "width": 4, "inflate": (False, True, True)}


def _tiny(stem="patch4", **options):
    fields = {**TINY, "stem": stem, **options}
    return compiled.build(lambda keys: video_encoder.SlowOnly(**fields, rngs=keys))


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
    options = {"kernel": kernel, "stride": stride, "temporal": temporal}
    layer = compiled.build(lambda keys: video_encoder.ConvNorm(3, 5, **options, rngs=keys))
    x = _frames(2, 4, 9, 8, 3)
    spatial = 1 if temporal else kernel
    weight = layer.conv.kernel[...].reshape(kernel if temporal else 1, spatial, spatial, 3, 5)
    mean, var = (s[...].reshape(1, 1, 1, 1, 5) for s in (layer.bn.mean, layer.bn.var))
    scale, bias = (s[...].reshape(1, 1, 1, 1, 5) for s in (layer.bn.scale, layer.bn.bias))
    want = (_conv3d(x, weight, stride) - mean) / jnp.sqrt(var + 1e-5) * scale + bias
    got, _ = compiled.run(layer, lambda m, x: m(x, 4, train=False), x.reshape(8, 9, 8, 3))
    np.testing.assert_allclose(got.reshape(want.shape), want, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stem,side", [("conv7", 32), ("patch4", 16), ("motion4", 16)])
def test_one_feature_per_frame(stem, side):
    encoder = _tiny(stem)
    out = compiled.call(encoder, _frames(2, 5, side, side, 3))
    assert out.shape == (2, 5, encoder.out_dim) == (2, 5, 4 * 4 * 4)
    assert out.dtype == jnp.float32


def test_a_frame_reaches_exactly_as_far_as_the_temporal_convolutions():
    encoder, x = _tiny(), _frames(1, 9, 16, 16, 3)
    both = jnp.concatenate([x, x.at[:, 4].set(0.0)])
    one, other = compiled.call(encoder, both)
    # two temporal convolutions of three frames: two frames to either side
    np.testing.assert_array_equal((one != other).any(-1), [abs(t - 4) <= 2 for t in range(9)])


def test_the_motion_stem_sees_no_still_background():
    encoder = _tiny("motion4")
    still = jnp.broadcast_to(_frames(1, 1, 16, 16, 3), (1, 3, 16, 16, 3))

    def motion_part(module, x):
        return module.apply_stem(x, train=False)[..., TINY["width"] :]

    part, _ = compiled.run(encoder, motion_part, still)
    moving, _ = compiled.run(encoder, motion_part, _frames(1, 3, 16, 16, 3))
    assert jnp.ptp(part, axis=(0, 1, 2)).max() == 0.0  # one value everywhere: nothing is seen
    np.testing.assert_array_equal(jnp.abs(moving - part).max((1, 2, 3)) > 0, [False, True, True])


def test_training_moves_the_batch_statistics_by_a_tenth():
    encoder, x = _tiny(), _frames(2, 3, 16, 16, 3)
    blocks = x.reshape(6, 4, 4, 4, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(6, 4, 4, 48)
    mean = (blocks @ encoder.conv1.conv.kernel[...]).mean((0, 1, 2))
    _, after = compiled.run(encoder, lambda module, x: module(x, train=True), x)
    want = 0.9 * encoder.conv1.bn.mean[...] + 0.1 * mean
    np.testing.assert_allclose(after["conv1"]["bn"]["mean"], want, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("stem,side", [("conv7", 32), ("patch4", 16), ("motion4", 16)])
def test_gradients_are_finite_and_reach_every_parameter(stem, side):
    x = _frames(2, 3, side, side, 3)
    grads = compiled.gradient(_tiny(stem), lambda module: module(x, train=True).std())
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def _rematerialised():
    """Setting, gradient and its argument of each form of a small encoder."""
    x = _frames(2, 3, 32, 32, 3)
    for remat in ("", "norms", "blocks"):
        encoder = _tiny("conv7", depths=(1,), inflate=(True,), remat=remat)
        graph, state = nnx.split(encoder)

        def loss(state, graph=graph):
            module = nnx.merge(graph, state)
            y = module(x, train=True)
            return jnp.square(y).sum(), nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

        yield remat, jax.grad(loss, has_aux=True, allow_int=True), state


def test_rematerialisation_makes_no_convolution_twice_but_of_whole_blocks():
    flop = []
    for remat, gradient, state in _rematerialised():
        flop.append(flops.count(gradient, state))
        assert ("remat" in str(jax.make_jaxpr(gradient)(state))) == bool(remat)
    assert flop[0] == flop[1] < flop[2]


@pytest.mark.slow
def test_rematerialisation_changes_nothing():
    made = [
        jax.device_get(filled.optimised_jit(gradient)(state))
        for _, gradient, state in _rematerialised()
    ]
    whole = jax.tree.leaves(made[0])
    for again in made[1:]:
        for a, b in zip(jax.tree.leaves(again), whole, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(b).max()))


def test_unknown_rematerialisation():
    with pytest.raises(ValueError, match="remat is 'all', expected '' or one of norms, blocks"):
        compiled.run(_tiny(remat="all"), lambda m, x: m(x, train=True), _frames(1, 1, 16, 16, 3))


def test_compute_type_is_the_one_asked_for():
    encoder = _tiny(dtype=jnp.bfloat16)
    assert compiled.call(encoder, _frames(1, 2, 16, 16, 3)).dtype == jnp.bfloat16
    assert encoder.conv1.conv.kernel.dtype == jnp.float32


def test_errors_name_what_came():
    with pytest.raises(ValueError, match="known stems: conv7, patch4"):
        video_encoder.SlowOnly(stem="patch3", rngs=nnx.Rngs(0))
    encoder = _tiny()
    with pytest.raises(ValueError, match=r"expected \[B, T, H, W, 3\]"):
        encoder(_frames(2, 16, 16, 3))
    with pytest.raises(ValueError, match="4x4"):
        encoder(_frames(1, 2, 18, 16, 3))
