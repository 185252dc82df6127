"""The transformer encoder's block and patches against torch's modules of the same weights."""

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from foley_jax.layers import encoder_block, patch_embedding
from foley_jax.runtime import init_keys

CHANNELS, HEADS = 12, 3


def _normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _run(module, x, **arguments):
    """Calls a module as one program, which takes less time than its operations one by one."""
    graphdef, state = nnx.split(module)
    call = filled.jit(lambda state, x, a: nnx.merge(graphdef, state)(x, **a))
    return call(nnx.to_pure_dict(state), x, arguments)


def _set(param, tensor):
    """Fills a parameter from torch's layout."""
    value = tensor.detach().numpy()
    param[...] = jnp.asarray(value.T if value.ndim == 2 else value)


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [1e-5, 0.3])
def test_a_block_is_torchs_encoder_layer(epsilon):
    theirs = torch.nn.TransformerEncoderLayer(
        CHANNELS,
        HEADS,
        20,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=epsilon,
        batch_first=True,
        norm_first=True,
    )
    block = encoder_block.EncoderBlock(
        CHANNELS, HEADS, epsilon=epsilon, hidden=20, rngs=init_keys.WeightKeys(0)
    )
    _set(block.attn.qkv.kernel, theirs.self_attn.in_proj_weight)
    _set(block.attn.qkv.bias, theirs.self_attn.in_proj_bias)
    for ours, layer in (
        (block.attn.proj, theirs.self_attn.out_proj),
        (block.mlp.fc1, theirs.linear1),
        (block.mlp.fc2, theirs.linear2),
    ):
        _set(ours.kernel, layer.weight)
        _set(ours.bias, layer.bias)
    x, mask = _normal(2, 5, CHANNELS), np.triu(np.full((5, 5), -np.inf, np.float32), 1)
    with torch.no_grad():
        want = theirs(torch.tensor(x)).numpy()
        causal = theirs(torch.tensor(x), src_mask=torch.tensor(mask)).numpy()
    np.testing.assert_allclose(_run(block, x), want, atol=2e-6)
    got = _run(block, x, bias_BNTS=mask[None, None])
    np.testing.assert_allclose(got, causal, atol=2e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_the_extra_key_is_torchs_bias_kv(fused):
    theirs = torch.nn.MultiheadAttention(CHANNELS, HEADS, add_bias_kv=True, batch_first=True)
    ours = encoder_block.SelfAttention(
        CHANNELS, HEADS, fused=fused, extra_key=True, rngs=init_keys.WeightKeys(0)
    )
    if fused:
        _set(ours.qkv.kernel, theirs.in_proj_weight)
        _set(ours.qkv.bias, theirs.in_proj_bias)
    else:
        parts = zip(theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True)
        for layer, (weight, bias) in zip((ours.query, ours.key, ours.value), parts, strict=True):
            _set(layer.kernel, weight)
            _set(layer.bias, bias)
    _set(ours.proj.kernel, theirs.out_proj.weight)
    _set(ours.proj.bias, theirs.out_proj.bias)
    ours.bias_k[...], ours.bias_v[...] = (
        jnp.asarray(bias.detach().numpy()) for bias in (theirs.bias_k, theirs.bias_v)
    )
    x = _normal(2, 4, CHANNELS)
    with torch.no_grad():
        want = theirs(*(torch.tensor(x),) * 3)[0].numpy()
    np.testing.assert_allclose(_run(ours, x), want, atol=2e-6)


@pytest.mark.parametrize("form, approximate", [("exact", "none"), ("tanh", "tanh")])
def test_gelu_is_torchs(form, approximate):
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    want = torch.nn.functional.gelu(torch.tensor(x), approximate=approximate).numpy()
    np.testing.assert_allclose(encoder_block.gelu(jnp.asarray(x), form), want, atol=1e-6)


def test_gelu_by_sigmoid_and_unknown_forms():
    x = np.linspace(-6, 6, 11, dtype=np.float32)
    want = x / (1 + np.exp(-1.702 * x.astype(np.float64)))
    np.testing.assert_allclose(encoder_block.gelu(jnp.asarray(x), "quick"), want, atol=1e-6)
    with pytest.raises(ValueError, match="'swish'"):
        encoder_block.gelu(jnp.asarray(x), "swish")


def test_gradients_of_a_block_are_finite():
    block = encoder_block.EncoderBlock(
        CHANNELS, HEADS, epsilon=1e-5, extra_key=True, rngs=init_keys.WeightKeys(0)
    )
    graphdef, state = nnx.split(block)
    x = _normal(1, 3, CHANNELS)
    loss = lambda state: nnx.merge(graphdef, state)(x).sum()  # noqa: E731
    for leaf in jax.tree.leaves(filled.jit(jax.grad(loss))(nnx.to_pure_dict(state))):
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize("patch, space", [((4, 4), (8, 13)), ((2, 3, 3), (4, 6, 9))])
def test_patches_are_a_convolution_of_that_stride(patch, space):
    layer = patch_embedding.PatchEmbedding(3, 5, patch, rngs=init_keys.WeightKeys(0))
    x = _normal(2, *space, 3)
    axes = len(patch)
    kernel = np.moveaxis(np.asarray(layer.kernel[...]), (-1, -2), (0, 1))
    conv = torch.nn.functional.conv2d if axes == 2 else torch.nn.functional.conv3d
    want = conv(
        torch.tensor(np.moveaxis(x, -1, 1)),
        torch.tensor(kernel),
        torch.tensor(np.array(layer.bias[...])),
        stride=patch,
    ).numpy()
    want = np.moveaxis(want, 1, -1).reshape(2, -1, 5)
    np.testing.assert_allclose(_run(layer, x), want, atol=2e-6)


def test_too_small_images_are_refused():
    layer = patch_embedding.PatchEmbedding(
        3, 5, (4, 4), use_bias=False, rngs=init_keys.WeightKeys(0)
    )
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 3\)"):
        layer(jnp.zeros((1, 3, 8, 3)))
