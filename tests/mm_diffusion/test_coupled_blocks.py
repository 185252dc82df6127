"""Blocks of the coupled U-Net against the official ones."""

import functools

import filled
from flax import nnx
from goldens import fill
import jax
import jax.numpy as jnp
from mm_diffusion import official
import numpy as np
import pytest

from foley_jax.layers import conv, embedding
from foley_jax.mm_diffusion.models import blocks

ARRAYS, META = official.golden("blocks")
ATOL = 1e-5  # as tests/README.md says
F32 = {"dtype": jnp.float32}


def check(name, build, place=("", "part"), time=False):
    """Runs one block on its golden inputs; `place` as in `official.part`."""
    about = META["blocks"][name]
    xs = zip(about["input_names"], about["inputs"])
    args = [official.inputs(n, s) if len(s) > 2 else fill.inp(n, s, official.PREFIX) for n, s in xs]
    if time:
        args[2] = jax.nn.silu(args[2])  # our blocks take the embedding after its SiLU
    prefix = f"{official.PREFIX}{name}."
    module = official.part(build, about["keys"], prefix, place)
    graphdef, state = nnx.split(module)
    run = filled.jit(lambda state, *args: nnx.merge(graphdef, state)(*args))
    got = run(nnx.to_pure_dict(state), *args)
    got = got if isinstance(got, tuple) else (got,)
    for i, y in enumerate(got):
        want = official.channels_last(ARRAYS[f"{name}/out{i}"])
        np.testing.assert_allclose(y, want, atol=ATOL, err_msg=f"{name}/out{i}")


RES = {
    "res_same": {},
    "res_change": {},
    "res_down": {"resample": "down"},
    "res_up": {"resample": "up"},
    "res_vattn": {"video_attention": True},
    "res_vattn_aattn": {"video_attention": True, "audio_attention": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RES)
def test_residual_block(name):
    about = META["blocks"][name]
    build = functools.partial(
        blocks.ResBlock,
        about["cin"],
        about["cout"],
        time_dim=48,
        dilation=about["dilation"],
        **RES[name],
        **F32,
    )
    check(name, build, time=True)


def test_input_block():
    check("initial_block", functools.partial(blocks.InputBlock, 3, 1, 32, **F32))


def test_video_convolution():
    check(
        "video_conv_2d1d_k3",
        functools.partial(blocks.VideoConv, 32, 64, **F32),
        place=("video_in_layers.2.", "video_conv1"),
    )


def test_video_head():
    check(
        "video_conv_3d_k3",
        functools.partial(conv.Conv3d, 32, 3, **F32),
        place=("video_out_layers.3.", "video_conv2"),
    )


@pytest.mark.parametrize("dilation", [1, 4, 64, 128])
def test_audio_convolution(dilation):
    """A dilation beyond the length leaves the middle tap alone."""
    build = functools.partial(blocks.audio_conv, 32, 64, dilation=dilation, **F32)
    check(f"audio_conv_d{dilation}", build, place=("audio_in_layers.2.", "audio_conv1"))


@pytest.mark.parametrize("how", ["down", "up"])
def test_resampling(how):
    about = META["blocks"][f"{how}_video"]
    video = official.inputs("rs_v", about["inputs"][0])
    audio = official.inputs("rs_a", META["blocks"][f"{how}_audio"]["inputs"][0])
    for name, got in (
        (f"{how}_video", blocks.resample_video(video, how)),
        (f"{how}_audio", blocks.resample_audio(audio, how)),
    ):
        want = official.channels_last(ARRAYS[f"{name}/out0"])
        np.testing.assert_allclose(got, want, atol=ATOL)


def test_timestep_embedding():
    got = embedding.timestep_embedding(jnp.asarray(META["sizes"]["t"]), 128)
    np.testing.assert_allclose(got, ARRAYS["timestep_embedding_128/out0"], atol=1e-4)


def test_dropout_needs_a_key_and_keeps_the_mean():
    x = np.ones((4, 1000), np.float32)
    np.testing.assert_array_equal(blocks.dropout(x, 0.1, None), x)
    y = np.asarray(filled.jit(lambda x, key: blocks.dropout(x, 0.1, key))(x, jax.random.key(0)))
    assert 0.05 < float((y == 0).mean()) < 0.15
    np.testing.assert_allclose(y[y != 0], 1 / 0.9, rtol=1e-6)


def test_norm_of_as_many_frames_as_channels():
    """The official norm would take frames for channels here."""
    x = fill.rng("norm").standard_normal((1, 32, 2, 2, 32), np.float32) * np.arange(1.0, 33.0)
    y = filled.jit(blocks.group_norm(32, rngs=nnx.Rngs(0)))(x.astype(np.float32))
    np.testing.assert_allclose(np.std(y, axis=(0, 1, 2, 3)), np.ones(32), atol=1e-4)
