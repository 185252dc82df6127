"""MMAudio's kinds: every official name has its place, in every spelling, and nothing else has."""

import json
import re

from flax import nnx, traverse_util
import mmaudio_goldens as official
import numpy as np
import pytest

from foley_jax.interop import fill, registry
from foley_jax.mmaudio import clip_weights, weights
from foley_jax.mmaudio.models import magnitude_preserving
from foley_jax.runtime import network
from foley_jax.vocoders import alias_free

FLOW = ("small_16k", "small_44k", "medium_44k", "large_44k", "large_44k_v2")
PARAMETERS = {
    "small_16k": 157_283_644,
    "small_44k": 157_409_144,
    "medium_44k": 621_805_944,
    "large_44k": 1_030_002_168,
    "large_44k_v2": 1_030_575_608,
    "vae_16k": 171_657_378,
    "vae_44k": 305_479_938,
    "clip": 986_714_881,
}
KINDS = {
    **{f"mmaudio/{name}": name for name in (*FLOW, "vae_16k", "vae_44k")},
    "mmaudio/bigvgan_16k": "bigvgan_16k",
    "mmaudio/bigvgan_44k": "bigvgan_44k",
    "open_clip/vit_h_14_378": "clip",
}


def _keys(name):
    return json.loads((official.GOLDENS / f"{name}_keys.json").read_text())


def _plain(keys):
    """Weight-normalised layers as plain ones."""
    return {
        re.sub(r"\.weight_v$", ".weight", key): shape
        for key, (shape, _) in keys.items()
        if not key.endswith(".weight_g")
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_name_and_shape_of_the_official_network_has_its_place(kind):
    keys = _keys(KINDS[kind])
    if KINDS[kind] in PARAMETERS:
        count = sum(int(np.prod(shape)) for shape, _ in keys.values())
        assert count == PARAMETERS[KINDS[kind]]
    description = registry.lookup(kind)
    model = registry.model_config(description, {})
    shapes = nnx.state(network.shapes(lambda rngs: description.build(model, rngs=rngs)))
    targets = {
        "/".join(map(str, path)): leaf
        for path, leaf in traverse_util.flatten_dict(nnx.to_pure_dict(shapes)).items()
    }
    left = dict(targets)
    for key, shape in _plain(keys).items():
        if fill.reason_of(description, key):
            continue
        renamed = fill.renamed_key(description, key)
        path = fill.path_of(renamed, targets)
        assert path is not None, key
        array = np.broadcast_to(np.float32(0), shape)  # takes no memory
        if key.endswith(".filter"):
            array = alias_free.kaiser_sinc().reshape(shape)
        laid_out = fill._layout(description, renamed, path, array, targets[path].shape)
        assert laid_out.shape == left.pop(path).shape, key
    assert not left


@pytest.mark.parametrize("kind", KINDS)
def test_official_files_are_recognised(kind):
    description, keys = registry.lookup(kind), list(_keys(KINDS[kind]))
    fitting = {
        name
        for name, known in registry.kinds().items()
        if known.signature and fill.has_signature(known, keys)
    }
    # the vocoders are not told from other BigVGANs, sizes of one depth not from each other
    same = {"mmaudio/small_16k", "mmaudio/small_44k", "mmaudio/medium_44k"}
    if kind in same:
        assert fitting == same
    elif "vae" in kind:
        assert fitting == {"mmaudio/vae_16k", "mmaudio/vae_44k"}
    elif description.signature:
        assert kind in fitting and fitting <= {kind, "mmaudio/small_16k", *same}
    else:
        assert not fitting


def test_flow_networks_are_converted_strictly():
    state = official.state("tiny", "tiny")
    tables = {"latent_rot": np.ones((1, 20, 16, 2, 2)), "t_embed.freqs": np.ones(128)}
    model = registry.from_state_dict("mmaudio/small_16k", {**state, **tables}, **official.TINY)
    kernel = model.joint_blocks[0].text_block.attn.qkv.kernel[...]
    official_rows = state["joint_blocks.0.text_block.attn.qkv.weight"]
    # k of channel 5 in head 1
    np.testing.assert_array_equal(kernel[:, 64 + 32 + 5], official_rows[(32 + 5) * 3 + 1])
    with pytest.raises(fill.ConversionError, match="fused_blocks.7.more"):
        odd = {**state, "fused_blocks.7.more": np.ones(1)}
        registry.from_state_dict("mmaudio/small_16k", odd, **official.TINY)
    with pytest.raises(fill.ConversionError, match="clip_input_proj.1.w1.weight"):
        registry.from_state_dict("mmaudio/large_44k_v2", state, **official.TINY)
    del state["sync_pos_emb"]
    with pytest.raises(fill.ConversionError, match="sync_pos_emb"):
        registry.from_state_dict("mmaudio/small_16k", state, **official.TINY)


def test_rows_of_q_k_and_v_come_back_in_the_official_order():
    rows = np.arange(24.0).reshape(12, 2)
    np.testing.assert_array_equal(weights.parts_apart(rows)[:4, 0], rows[::3, 0])
    np.testing.assert_array_equal(weights.parts_mixed(weights.parts_apart(rows)), rows)


def test_kernels_of_the_autoencoder_are_folded_as_the_module_folds_them():
    raw = np.random.default_rng(0).standard_normal((4, 5, 3)).astype(np.float32)
    state = {"a.weight": raw, "a.qkv.weight": raw[:3, :, :1], "gain": np.float32(2)}
    used = weights.used_kernels(state)
    want = magnitude_preserving.normalised_kernel(raw.transpose(2, 1, 0))
    np.testing.assert_allclose(used["a.weight"].transpose(2, 1, 0), want, rtol=1e-6)
    # of norm one but for the epsilon
    np.testing.assert_allclose(np.square(used["a.weight"]).sum((1, 2)), 1.0, atol=1e-3)
    assert used["gain"] == 2


_VOCODER = {
    "num_mels": 3,
    "upsample_rates": (2,),
    "upsample_kernel_sizes": (4,),
    "upsample_initial_channel": 4,
    "resblock_kernel_sizes": (3,),
    "resblock_dilation_sizes": ((1,),),
}


def _vocoder_state(spelling):
    """A small vocoder's weights, lengths and directions spelled in one of three ways."""
    rng = np.random.default_rng(1)
    shapes = {"conv_pre": (4, 3, 7), "ups.0.0": (4, 2, 4), "conv_post": (1, 2, 7)}
    shapes |= {f"resblocks.0.convs{i}.0": (2, 2, 3) for i in (1, 2)}
    state = {}
    for layer, shape in shapes.items():
        v = rng.standard_normal(shape).astype(np.float32)
        g = rng.random((shape[0], 1, 1)).astype(np.float32) + 0.5
        names = {"old": ("weight_g", "weight_v")}
        names["new"] = ("parametrizations.weight.original0", "parametrizations.weight.original1")
        if spelling == "plain":
            norm = np.sqrt(np.square(v).sum((1, 2), keepdims=True))
            state[f"{layer}.weight"] = g * v / norm
        else:
            state |= {f"{layer}.{n}": x for n, x in zip(names[spelling], (g, v), strict=True)}
        state[f"{layer}.bias"] = np.ones(shape[1] if layer == "ups.0.0" else shape[0], np.float32)
    for part in ("resblocks.0.activations.0", "resblocks.0.activations.1", "activation_post"):
        state |= {f"{part}.act.{name}": np.zeros(2, np.float32) for name in ("alpha", "beta")}
        for name in ("upsample.filter", "downsample.lowpass.filter"):
            state[f"{part}.{name}"] = alias_free.kaiser_sinc().reshape(1, 1, -1)
    return state


def test_vocoders_may_be_spelled_in_three_ways():
    mel = np.random.default_rng(2).standard_normal((1, 3, 6)).astype(np.float32)
    waves = [
        official.run(
            registry.from_state_dict("mmaudio/bigvgan_16k", _vocoder_state(name), **_VOCODER),
            lambda model, mel: model(mel),
            mel,
        )
        for name in ("old", "new", "plain")
    ]
    assert waves[0].shape == (1, 12) and np.std(waves[0]) > 1e-3
    for wave in waves[1:]:
        np.testing.assert_allclose(wave, waves[0], atol=1e-6)


def test_a_vocoder_with_other_filters_is_refused():
    state = _vocoder_state("plain")
    state["activation_post.upsample.filter"] = np.ones((1, 1, 12), np.float32)
    with pytest.raises(fill.ConversionError, match="low-pass filter"):
        registry.from_state_dict("mmaudio/bigvgan_16k", state, **_VOCODER)


def test_names_of_transformers_become_those_of_open_clip():
    state = {"logit_scale": np.float32(0), "text_model.embeddings.position_ids": np.arange(3)}
    for tower in ("text_model", "vision_model"):
        layer = f"{tower}.encoder.layers.0"
        for number, part in enumerate("qkv"):
            state[f"{layer}.self_attn.{part}_proj.weight"] = np.full((2, 2), float(number))
            state[f"{layer}.self_attn.{part}_proj.bias"] = np.full(2, float(number))
        for name in ("self_attn.out_proj", "mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2"):
            state |= {f"{layer}.{name}.{leaf}": np.zeros(2) for leaf in ("weight", "bias")}
    state |= {
        f"vision_model.{name}.{leaf}": np.zeros(2)
        for name in ("pre_layrnorm", "post_layernorm")
        for leaf in ("weight", "bias")
    }
    state |= {f"text_model.final_layer_norm.{leaf}": np.zeros(2) for leaf in ("weight", "bias")}
    state |= {
        "vision_model.embeddings.class_embedding": np.zeros(2),
        "vision_model.embeddings.patch_embedding.weight": np.zeros((2, 3, 2, 2)),
        "vision_model.embeddings.position_embedding.weight": np.zeros((2, 2)),
        "text_model.embeddings.token_embedding.weight": np.zeros((2, 2)),
        "text_model.embeddings.position_embedding.weight": np.zeros((2, 2)),
        "visual_projection.weight": np.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        "text_projection.weight": np.zeros((2, 2)),
    }
    renamed = clip_weights.open_clip_names(state)
    first = {
        key
        for key in _keys("clip")
        if not (layer := re.search(r"resblocks\.(\d+)", key)) or layer[1] == "0"
    }
    assert set(renamed) == first | {"text_model.embeddings.position_ids"}
    joined = renamed["visual.transformer.resblocks.0.attn.in_proj_weight"]
    np.testing.assert_array_equal(joined[:, 0], [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(renamed["visual.proj"], [[1, 3, 5], [2, 4, 6]])
    kept = {"visual.proj": np.ones(2)}
    assert clip_weights.open_clip_names(kept) is kept
