"""Full-size latent diffusion against the official networks (float32, seeded weights).

Every comparison walks from the input to the output, so that the first activation that differs is
the one that is reported.
"""

import full_size
from goldens import fill
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diff_foley.models import latent_diffusion
from foley_jax.diffusion import gaussian, schedule
from foley_jax.interop import registry
from foley_jax.layers import embedding

pytestmark = pytest.mark.slow
PREFIX = full_size.PREFIX
# absolute, for activations scaled to unit deviation; the official code differs from itself by
# 5e-6 when its float32 sums are re-ordered
ATOL = 2e-4
LOSS_ATOL = 1e-5


@pytest.fixture(scope="module")
def model():
    return registry.from_state_dict("diff_foley/ldm", full_size.state("ldm"))


def _load(name: str) -> dict[str, np.ndarray]:
    with np.load(full_size.GOLDENS / f"{name}.npz") as file:
        return dict(file)


def _close(name: str, got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape, name
    scale = max(1.0, float(want.std()))
    worst = float(np.abs(got - want).max()) / scale
    print(f"{name:40s} worst {worst:.1e} of unit deviation")
    np.testing.assert_allclose(got / scale, want / scale, rtol=0, atol=ATOL, err_msg=name)


def _context():
    return fill.inp("unet_ctx", (1, 32, 768), PREFIX)


def _unet_walk(model, x, t_B, context_BLD):
    """Every entry of the U-Net's three lists, by its official name."""
    unet, out = model.unet, {}
    time = unet.time_embed[0](embedding.timestep_embedding(t_B, unet.model_channels))
    out["time_embed"] = unet.time_embed[1](jax.nn.silu(time))
    time = jax.nn.silu(out["time_embed"])
    h, skips = x, []
    for i, layers in enumerate(unet.input_blocks):
        h = out[f"input_blocks.{i}"] = unet.run_layers(layers, h, time, context_BLD, {})
        skips.append(h)
    h = out["middle_block"] = unet.run_layers(unet.middle_block, h, time, context_BLD, {})
    for i, layers in enumerate(unet.output_blocks):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = out[f"output_blocks.{i}"] = unet.run_layers(layers, h, time, context_BLD, {})
    out["out"] = unet(x, t_B, context_BLD)
    return out


def test_unet_activations(model):
    golden = _load("unet")
    x = full_size.last(fill.inp("unet_x", (1, 4, 16, 64), PREFIX))
    got = full_size.jitted(model, _unet_walk, x, np.float32([500.0]), _context())
    names = [key.removeprefix("main/") for key in golden if key.startswith("main/")]
    assert len(names) == 13
    for name in names:
        value = got[name]
        if value.ndim == 4:
            value = full_size.first(value)
        if "block" in name:
            wide = value.shape[-1] > 16
            value = value[:, ::8, ::2, ::4] if wide else value[:, ::8]
        _close(f"unet main/{name}", value, golden[f"main/{name}"])


def test_unet_behind_the_conditioner_at_a_fractional_step(model):
    x = full_size.last(fill.inp("unet_x", (1, 4, 16, 64), PREFIX))
    features = fill.unit_rows(fill.inp("video_feat", (1, 32, 512), PREFIX))

    def run(model, x, t_B, features):
        return model.denoise(x, t_B, model.conditioner(features))

    got = full_size.jitted(model, run, x, np.float32([959.04]), features)
    _close("unet chain/out", full_size.first(got), _load("unet")["chain/out"])


def test_unet_with_the_published_null_context(model):
    x = full_size.last(fill.inp("unet_x", (1, 4, 16, 64), PREFIX))
    zeros = np.zeros((1, 32, 768), np.float32)
    got = full_size.jitted(model, lambda m, *a: m.unet(*a), x, np.float32([959.04]), zeros)
    _close("unet zeroctx/out", full_size.first(got), _load("unet")["zeroctx/out"])


def test_conditioner(model):
    golden = _load("cond")
    features = fill.unit_rows(fill.inp("video_feat", (1, 32, 512), PREFIX))
    long = fill.unit_rows(fill.inp("video_feat40", (2, 40, 512), PREFIX))

    def run(model, features, long):
        zeros = jnp.zeros_like(features)
        condition = model.conditioner
        return {
            "out": condition(features),
            "embedder_only": condition.embedder(features),
            "train_null": condition(zeros),
            "out_len40": condition(long),
        }

    for name, value in full_size.jitted(model, run, features, long).items():
        _close(f"cond {name}", value, golden[f"ldm/{name}"])


def _encoder_walk(model, x):
    encoder, out = model.autoencoder.encoder, {}
    h = out["conv_in"] = encoder.conv_in(x)
    for i, level in enumerate(encoder.down):
        h = level(h)
        if level.downsample is not None:
            out[f"down.{i}.downsample"] = h
    h = out["mid.block_1"] = encoder.mid.block_1(h)
    h = out["mid.attn_1"] = encoder.mid.attn_1(h)
    h = out["mid.block_2"] = encoder.mid.block_2(h)
    out["conv_out"] = encoder.conv_out(jax.nn.silu(encoder.norm_out(h)))
    return out


def _encode(model, mel, noise):
    image = latent_diffusion.to_image(mel, 3)
    mean, logvar = model.autoencoder.encode(image)
    scale = model.latent_scale[...]
    raw = model.autoencoder.quant_conv(model.autoencoder.encoder(image))
    sampled = scale * (mean + jnp.exp(0.5 * logvar) * noise)
    hooks = _encoder_walk(model, image)
    mode = model.encode_mel(mel, key=None)
    return hooks, raw, logvar, mode, sampled


def test_encoder(model):
    golden = _load("vae")
    mel = fill.structured("vae_mel", PREFIX, (1,), (16, 64), (8, 8))
    noise = full_size.last(fill.inp("vae_eps", (1, 4, 16, 64), PREFIX))
    hooks, raw, logvar, mode, sampled = full_size.jitted(model, _encode, mel, noise)
    for name, value in hooks.items():
        value, want = full_size.first(value), golden[f"enc/encoder.{name}"]
        crop = (16, 4, 4) if value.shape[2] >= 32 else (8, 2, 2)
        _close(f"vae enc/{name}", value[:, :: crop[0], :: crop[1], :: crop[2]], want)
    pairs = {"moments": raw, "logvar_clamped": logvar}
    pairs.update({"z_mode_scaled": mode, "z_sample_scaled": sampled})
    for name, value in pairs.items():
        _close(f"vae enc/{name}", full_size.first(value), golden[f"enc/{name}"])


def test_decoder(model):
    golden = _load("vae")
    z = full_size.last(fill.inp("vae_z", (1, 4, 16, 64), PREFIX))

    def run(model, z):
        return model.decode_mel(z), model.autoencoder.decode(z / model.latent_scale[...])

    mel, rgb = full_size.jitted(model, run, z)
    _close("vae dec/spec_channel0", mel, golden["dec/spec_channel0"])
    _close("vae dec/rgb_crop", full_size.first(rgb)[:, :, ::4, ::4], golden["dec/rgb_crop"])


def test_training_loss(model):
    golden = _load("diffusion_loss")
    x0 = full_size.last(fill.inp("loss_x0", (1, 4, 16, 64), PREFIX))
    noise = full_size.last(fill.inp("loss_noise", (1, 4, 16, 64), PREFIX))
    table = schedule.scaled_linear()

    def run(model, x0, noise, context):
        def network(x, t_B):
            return model.denoise(x, t_B, context)

        return gaussian.training_loss(table, network, x0, jnp.array([500]), noise)

    got = full_size.jitted(model, run, x0, noise, _context())
    print("loss", got, golden["loss_simple"])
    np.testing.assert_allclose(got[0], golden["loss_simple"].item(), rtol=0, atol=LOSS_ATOL)
    vlb = got[0] * golden["lvlb_weights_t"].item()
    np.testing.assert_allclose(vlb, golden["loss_vlb"].item(), rtol=0, atol=LOSS_ATOL)
