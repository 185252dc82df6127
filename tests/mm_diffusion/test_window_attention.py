"""RS-MMA against the official code, and its cost."""

import functools

import filled
from flax import nnx
import jax
import jax.numpy as jnp
from mm_diffusion import official
import numpy as np
import pytest

from foley_jax.mm_diffusion.models import window_attention
from foley_jax.runtime import flops

ARRAYS, META = official.golden("cross_attention")
ATOL = 1e-5  # as tests/README.md says for blocks


def run(module, video, audio, shift):
    graphdef, state = nnx.split(module)

    @filled.jit
    def call(state, video, audio, shift):
        return nnx.merge(graphdef, state)(video, audio, shift)

    return call(nnx.to_pure_dict(state), video, audio, shift)


@pytest.mark.slow
@pytest.mark.parametrize("name", META["cases"])
def test_equals_official(name):
    case = META["cases"][name]
    f, h, w, length, c = (case[k] for k in "FHWLC")
    build = functools.partial(
        window_attention.WindowAttention,
        c,
        case["heads"],
        window=case["window"] if case["window_shift"] else None,
    )
    module = official.part(build, case["keys"], official.PREFIX + "cross.")
    video = official.inputs("cross.v", (2, f, c, h, w))[:1]
    audio = official.inputs("cross.a", (2, c, length))[:1]
    shift = jnp.int32(case["shift"]) if case["window_shift"] else None
    got_video, got_audio = run(module, video, audio, shift)
    want = official.channels_last(ARRAYS[f"{name}/video"])
    np.testing.assert_allclose(got_video, want, atol=ATOL)
    want = official.channels_last(ARRAYS[f"{name}/audio"])
    np.testing.assert_allclose(got_audio, want, atol=ATOL)


@pytest.mark.parametrize(("frames", "per_frame", "left", "window"), [(5, 3, 0, 2), (4, 2, 3, 4)])
def test_windows_are_the_index_table(frames, per_frame, left, window):
    length = frames * per_frame + left
    tokens = jnp.arange(length, dtype=jnp.float32).reshape(1, length, 1)
    cut = jax.jit(
        functools.partial(
            window_attention.frame_windows,
            num_frames=frames,
            per_frame=per_frame,
            window=window,
        )
    )
    for shift in range(frames - window + 1):
        first = (np.arange(frames)[:, None] + shift) * per_frame
        want = (first + np.arange(window * per_frame)[None]) % length
        np.testing.assert_array_equal(cut(tokens, jnp.int32(shift))[0, :, :, 0], want)
    assert cut._cache_size() == 1  # the shift is an argument, not a constant


def dots(frames, window, pixels=4, per_frame=16, heads=2, width=32):
    """FLOPs of the products of both directions."""
    attend = functools.partial(window_attention.cross_attention, window=window, num_heads=heads)
    video = jax.ShapeDtypeStruct((1, frames, pixels, 3 * heads * width), jnp.float32)
    audio = jax.ShapeDtypeStruct((1, frames * per_frame, 3 * heads * width), jnp.float32)
    shift = jax.ShapeDtypeStruct((), jnp.int32)
    return flops.count(attend, video, audio, shift)


def test_flops_grow_with_the_window_not_with_the_square_of_the_clip():
    """Per frame: HW queries meet S*L/F keys, L/F queries meet S*HW keys."""
    made = {(f, s): dots(f, s) for f, s in [(16, 4), (32, 4), (64, 4), (32, 8)]}
    # q k^T and w v, 2 FLOPs per multiply-add, 2 directions
    per_frame = 2 * 2 * 2 * 4 * (4 * 16) * 64
    for frames in (16, 32, 64):
        assert made[frames, 4] == frames * per_frame
    assert made[32, 8] == 2 * made[32, 4]
    assert made[32, 4] * 8 == dots(32, 32)  # the whole clip: 8 times the keys


def test_softmax_is_float32_in_half_precision():
    qkv = functools.partial(jax.random.normal, dtype=jnp.bfloat16)
    video, audio = qkv(jax.random.key(0), (1, 4, 4, 48)), qkv(jax.random.key(1), (1, 16, 48))
    attend = functools.partial(window_attention.cross_attention, window=2, num_heads=2)
    jaxpr = str(jax.make_jaxpr(attend)(video, audio, jnp.int32(1)))
    exps = [line for line in jaxpr.splitlines() if " exp " in line]
    assert len(exps) == 2 and all("f32[" in line for line in exps)
    attend = filled.jit(attend)
    got = attend(video, audio, jnp.int32(1))
    want = attend(video.astype(jnp.float32), audio.astype(jnp.float32), jnp.int32(1))
    for x, y in zip(got, want):
        assert x.dtype == jnp.bfloat16
        np.testing.assert_allclose(x.astype(jnp.float32), y, atol=0.05)


@pytest.mark.parametrize(
    ("length", "window", "message"), [(3, 2, "3 audio samples"), (8, 5, "window of 5 frames")]
)
def test_sizes_that_do_not_fit(length, window, message):
    video, audio = jnp.zeros((1, 4, 4, 48)), jnp.zeros((1, length, 48))
    with pytest.raises(ValueError, match=message):
        window_attention.cross_attention(video, audio, 0, window=window, num_heads=2)


def test_a_window_needs_a_shift():
    module = filled.module(
        lambda keys: window_attention.WindowAttention(32, 2, window=2, rngs=keys)
    )
    with pytest.raises(ValueError, match="both or neither"):
        module(jnp.zeros((1, 4, 2, 2, 32)), jnp.zeros((1, 8, 32)))
