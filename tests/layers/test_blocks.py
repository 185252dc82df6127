"""Norms, attention, embeddings and residual blocks against torch and closed forms."""

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from foley_jax.kernels import dispatch
from foley_jax.layers import configured, embedding, locality, residual, transformer
from foley_jax.layers import norm as normalization


def _normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2])
def test_group_norm_and_its_gradients_are_torchs(batch):
    x, dy = 3.0 + 2.0 * _normal(batch, 3, 5, 8), _normal(batch, 3, 5, 8, seed=3)
    scale, bias = _normal(8, seed=1), _normal(8, seed=2)

    def ours(x, scale, bias):
        norm = normalization.GroupNorm32(8, num_groups=4, epsilon=1e-5, rngs=nnx.Rngs(0))
        norm.scale[...], norm.bias[...] = scale, bias
        return norm(x)

    y, vjp = jax.vjp(ours, x, scale, bias)
    theirs = [torch.tensor(a, requires_grad=True) for a in (x, scale, bias)]
    want = torch.nn.functional.group_norm(
        theirs[0].permute(0, 3, 1, 2), 4, *theirs[1:], eps=1e-5
    ).permute(0, 2, 3, 1)
    want.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, want.detach(), atol=1e-5)
    for got, tensor in zip(vjp(jnp.asarray(dy)), theirs, strict=True):
        np.testing.assert_allclose(got, tensor.grad, atol=2e-5)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_factor_per_channel_multiplies_its_channel(batch):
    x, a_BC = jnp.asarray(_normal(batch, 3, 5, 4)), jnp.asarray(_normal(batch, 4, seed=1))
    multiplied = lambda x, a: x * dispatch.broadcast_channels(a, x)  # noqa: E731
    y, vjp = jax.vjp(multiplied, x, a_BC)
    np.testing.assert_array_equal(y, x * a_BC[:, None, None])
    dx, da = vjp(jnp.ones_like(y))
    np.testing.assert_array_equal(dx, jnp.broadcast_to(a_BC[:, None, None], x.shape))
    np.testing.assert_allclose(da, x.sum((1, 2)), rtol=1e-5)


def test_group_norm_keeps_float32_statistics_in_bfloat16():
    # a large mean: statistics in bfloat16 would lose the spread altogether
    x = jnp.asarray(1000.0 + 8.0 * _normal(1, 16, 16, 4), jnp.bfloat16)
    norm = normalization.GroupNorm32(4, num_groups=1, epsilon=1e-5, rngs=nnx.Rngs(0))
    y = norm(x)
    assert y.dtype == jnp.bfloat16
    assert np.std(y.astype(np.float32)) == pytest.approx(1.0, rel=0.02)


def test_group_norm_refuses_groups_that_do_not_divide():
    with pytest.raises(ValueError, match="6 channels cannot form 4 groups"):
        normalization.GroupNorm32(6, num_groups=4, epsilon=1e-5, rngs=nnx.Rngs(0))


def test_timestep_embedding_is_cosine_then_sine():
    got = embedding.timestep_embedding(jnp.array([0.0, 2.5]), 4)
    want = [[1, 1, 0, 0], [np.cos(2.5), np.cos(0.025), np.sin(2.5), np.sin(0.025)]]
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("biased", [False, True])
def test_attention_is_torchs(biased):
    q, k, v = _normal(2, 5, 3, 4), _normal(2, 7, 3, 4, seed=1), _normal(2, 7, 3, 4, seed=2)
    bias = _normal(2, 3, 5, 7, seed=3) if biased else None
    want = torch.nn.functional.scaled_dot_product_attention(
        *(torch.tensor(a).permute(0, 2, 1, 3) for a in (q, k, v)),
        attn_mask=None if bias is None else torch.tensor(bias),
    ).permute(0, 2, 1, 3)
    got = dispatch.attention(q, k, v, bias_BNTS=bias)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_unknown_attention_implementation_is_refused():
    x = jnp.ones((1, 2, 1, 4))
    with pytest.raises(ValueError, match="'flash3' is not in"):
        dispatch.attention(x, x, x, implementation="flash3")


def test_residual_block_starts_as_its_shortcut_and_takes_time():
    x, time = _normal(2, 4, 4, 8), _normal(2, 6, seed=1)
    block = residual.ResBlock(
        8, 8, time_dim=6, epsilon=1e-5, num_groups=4, zero_init=True, rngs=nnx.Rngs(0)
    )
    np.testing.assert_array_equal(block(x, time), x)
    block.conv2.kernel[...] = _normal(3, 3, 8, 8, seed=2)
    assert np.abs(block(x, time) - block(x, 2 * time)).max() > 1e-3


def test_transformer_starts_as_identity_and_sees_its_context():
    x, context = _normal(2, 2, 4, 8), _normal(2, 5, 6, seed=1)
    model = transformer.SpatialTransformer(8, 2, 6, num_groups=4, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    params = nnx.to_pure_dict(params)
    run = filled.jit(lambda params, context: nnx.merge(graphdef, params)(x, context))
    np.testing.assert_array_equal(run(params, context), x)
    params["proj_out"]["kernel"] = _normal(1, 1, 8, 8, seed=2)
    assert np.abs(run(params, context) - run(params, -context)).max() > 1e-3


def test_relative_rows_are_column_centres_minus_row_times():
    context_s = jnp.array([[0.0, 0.25]])
    got = locality.relative_times(2, 0.5, context_s)
    np.testing.assert_allclose(got, [[[1.0, 0.0], [3.0, 2.0]]])


def test_locality_prefers_the_row_at_its_offset():
    relative = locality.relative_times(8, 0.25, jnp.arange(8.0)[None] * 0.25)
    prior = locality.Locality(4, 6, rngs=nnx.Rngs(0))
    favourite = np.argmax(prior.bias(relative)[0], axis=-1)  # [heads, columns]
    # column w's centre lies half a row after row w; offset -1 looks one row later, 1 earlier
    np.testing.assert_array_equal(favourite[1][:6] - favourite[0][:6], 1)
    np.testing.assert_array_equal(favourite[0][2:] - favourite[2][2:], 1)
    assert prior.position(relative).shape == (1, 1, 8, 6)


def test_position_restarts_at_a_cut_between_two_clips():
    # features of the second clip lie 0.1 s off the grid of the first
    context_s = jnp.array([[0.0, 0.25, 0.6, 0.85]])
    relative = locality.relative_times(4, 0.25, context_s)
    prior = locality.Locality(1, 6, rngs=nnx.Rngs(0))
    got = prior.position(relative)[0, 0]
    centres = np.array([0.125, 0.375, 0.625, 0.875])
    since = (centres - np.array([0.0, 0.25, 0.6, 0.85])) / 0.25
    waves = np.stack([np.sin(2 * np.pi * since), np.cos(2 * np.pi * since)], -1)
    np.testing.assert_allclose(got, waves @ prior.phase_proj.kernel[...], atol=1e-5)


def test_the_phase_is_of_the_feature_and_the_bias_of_seconds():
    times_s = jnp.arange(12.0)[None] / 12
    relative = locality.relative_times(8, 0.125, times_s)
    prior = locality.Locality(1, 6, feature_s=1 / 12, rngs=nnx.Rngs(0))
    centres = (np.arange(8) + 0.5) / 8
    since = np.mod(centres, 1 / 12) * 12
    waves = np.stack([np.sin(2 * np.pi * since), np.cos(2 * np.pi * since)], -1)
    got = prior.position(relative)[0, 0]
    np.testing.assert_allclose(got, waves @ prior.phase_proj.kernel[...], atol=1e-5)
    distance = (centres[:, None] - np.arange(12) / 12) / 0.25
    np.testing.assert_allclose(prior.bias(relative)[0, 0], -(distance**2), atol=1e-5)


def test_config_fields_build_a_module_and_unknown_ones_are_named():
    block = configured.build(
        residual.ResBlock,
        {"in_channels": 8, "out_channels": 8, "epsilon": 1e-6, "num_groups": 4},
        dtype="bfloat16",
        rngs=nnx.Rngs(0),
    )
    assert block.conv1.dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="ResBlock has no field chanels; its fields: in_channels"):
        configured.build(residual.ResBlock, {"chanels": 8}, rngs=nnx.Rngs(0))


def test_gradients_of_a_transformer_are_finite():
    x, context = _normal(1, 2, 4, 8), _normal(1, 5, 6, seed=1)
    relative = locality.relative_times(4, 0.25, jnp.arange(5.0)[None] * 0.25)
    model = filled.module(
        lambda keys: transformer.SpatialTransformer(
            8, 2, 6, num_groups=4, use_locality=True, rngs=keys
        )
    )
    graphdef, params = nnx.split(model)

    def loss(params):
        return jnp.square(nnx.merge(graphdef, params)(x, context, relative)).sum()

    grads = filled.jit(jax.grad(loss))(nnx.to_pure_dict(params))
    block = grads["transformer_blocks"][0]
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert np.abs(block["locality"]["offset"]).max() > 0
    assert np.abs(block["locality"]["log_sharpness"]).max() > 0
