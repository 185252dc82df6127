"""The composed model: scale, mel in and out, configuration, names of a checkpoint."""

import json
import pathlib
import re

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diff_foley.models import latent_diffusion
from foley_jax.diff_foley.weights import diffusers_names, tables
from foley_jax.runtime import network as network_lib

KEYS = pathlib.Path(__file__).parents[1] / "goldens" / "diff_foley" / "ldm_keys.json"
CONFIG = {
    "unet": {
        "model_channels": 8,
        "channel_mult": (1, 2),
        "num_res_blocks": 1,
        "attention_downsamples": (2,),
        "num_heads": 2,
        "context_dim": 6,
        "num_groups": 4,
    },
    "autoencoder": {"ch": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "num_groups": 4},
    "conditioner": {"in_dim": 5, "out_dim": 6},
    "latent_scale": 0.5,
}


@pytest.fixture(scope="module")
def model():
    made = filled.module(lambda keys: latent_diffusion.from_config(CONFIG, frame_s=0.01, rngs=keys))
    made.latent_scale[...] = jnp.float32(0.5)
    return made


def _run(model, fn, *args):
    graphdef, state = nnx.split(model)
    call = filled.jit(lambda state, *args: fn(nnx.merge(graphdef, state), *args))
    return jax.device_get(call(nnx.to_pure_dict(state), *args))


def _mel(*shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


@pytest.mark.slow
def test_mel_goes_through_the_scaled_latent(model):
    def walk(model, mel):
        mean, _ = model.autoencoder.encode(jnp.repeat(mel[..., None], 3, axis=-1))
        z = model.encode_mel(mel, key=None)
        return mean, model.autoencoder.decode(mean), z, model.decode_mel(z)

    mean, image, z, mel = _run(model, walk, _mel(2, 8, 16))
    assert z.shape == (2, *model.latent_shape(8, 16)) == (2, 4, 8, 4)
    np.testing.assert_allclose(z, 0.5 * mean, atol=1e-6)
    np.testing.assert_allclose(mel, image[..., 0], atol=1e-5)


def test_posterior_is_drawn_with_a_key(model):
    def draws(model, mel):
        return [model.encode_mel(mel, key=jax.random.key(i)) for i in (0, 0, 1)]

    first, again, other = _run(model, draws, _mel(1, 8, 8))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_column_length_follows_the_front_end(model):
    assert model.unet.column_s == pytest.approx(0.02)  # 2 mel frames of 10 ms
    explicit = {**CONFIG, "unet": {**CONFIG["unet"], "column_s": 0.3}}
    built = network_lib.shapes(
        lambda keys: latent_diffusion.from_config(explicit, frame_s=0.01, rngs=keys)
    )
    assert built.unet.column_s == 0.3


def test_latent_scale_is_saved_but_is_no_parameter(model):
    _, params, rest = nnx.split(model, nnx.Param, ...)
    assert "latent_scale" not in nnx.to_pure_dict(params)
    assert set(nnx.to_pure_dict(rest)) == {"latent_scale"}


@pytest.mark.parametrize(
    "change,message",
    [
        ({"unte": {}}, "no field unte"),
        ({"conditioner": {"in_dim": 5, "out_dim": 7}}, "out_dim is 7, unet.context_dim is 6"),
        ({"autoencoder": {**CONFIG["autoencoder"], "z_channels": 3}}, "z_channels is 3"),
    ],
)
def test_configs_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        network_lib.shapes(
            lambda keys: latent_diffusion.from_config({**CONFIG, **change}, rngs=keys)
        )


def test_default_is_the_official_model_and_every_key_has_a_place():
    """Names only (the slow parity test fills the values): 937 weights, 12 schedule tables."""
    kind = tables.KINDS["diff_foley/ldm"]
    abstract = network_lib.shapes(lambda keys: kind.build(kind.model, rngs=keys))
    state = nnx.to_pure_dict(nnx.state(abstract))
    ours = {
        ".".join(str(getattr(k, "key", k)) for k in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(state)
    }
    ignored = [entry if isinstance(entry, str) else entry[0] for entry in kind.ignore]
    renamed = set()
    for key in json.loads(KEYS.read_text()):
        if any(re.fullmatch(pattern, key) for pattern in ignored):
            continue
        for pattern, replacement in kind.renames:
            key = re.sub(pattern, replacement, key)
        parent, leaf = key.rsplit(".", 1)
        names = {"weight": ("kernel", "scale", "embedding")}.get(leaf, (leaf,))
        renamed.update(f"{parent}.{n}" for n in names if f"{parent}.{n}" in ours)
    assert len(renamed) == 937
    assert ours - renamed == {"latent_scale"}
    sizes = {part: jax.tree.leaves(state[part]) for part in ("unet", "autoencoder")}
    counts = {part: sum(int(np.prod(x.shape)) for x in leaves) for part, leaves in sizes.items()}
    assert counts == {"unet": 859_520_964, "autoencoder": 83_653_863}


@pytest.mark.parametrize(
    "ours,theirs",
    [
        ("down_blocks.1.resnets.0.conv_shortcut.weight", "input_blocks.4.0.skip_connection.weight"),
        ("down_blocks.2.downsamplers.0.conv.bias", "input_blocks.9.0.op.bias"),
        ("down_blocks.0.attentions.1.proj_in.weight", "input_blocks.2.1.proj_in.weight"),
        ("mid_block.resnets.1.time_emb_proj.bias", "middle_block.2.emb_layers.1.bias"),
        ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.1.conv.weight"),
        ("up_blocks.2.upsamplers.0.conv.weight", "output_blocks.8.2.conv.weight"),
        ("up_blocks.3.resnets.2.norm2.weight", "output_blocks.11.0.out_layers.0.weight"),
        ("time_embedding.linear_2.weight", "time_embed.2.weight"),
    ],
)
def test_diffusers_unet_names(ours, theirs):
    assert diffusers_names.unet_name(ours) == theirs
    assert f"model.diffusion_model.{theirs}" in json.loads(KEYS.read_text())


@pytest.mark.parametrize(
    "ours,theirs",
    [
        ("decoder.up_blocks.0.resnets.2.conv1.bias", "decoder.up.3.block.2.conv1.bias"),
        ("decoder.up_blocks.2.upsamplers.0.conv.bias", "decoder.up.1.upsample.conv.bias"),
        ("encoder.down_blocks.1.downsamplers.0.conv.bias", "encoder.down.1.downsample.conv.bias"),
        ("encoder.mid_block.attentions.0.to_out.0.weight", "encoder.mid.attn_1.proj_out.weight"),
        ("decoder.mid_block.attentions.0.query.bias", "decoder.mid.attn_1.q.bias"),
        ("decoder.conv_norm_out.weight", "decoder.norm_out.weight"),
    ],
)
def test_diffusers_autoencoder_names(ours, theirs):
    assert diffusers_names.vae_name(ours) == theirs
    assert f"first_stage_model.{theirs}" in json.loads(KEYS.read_text())
