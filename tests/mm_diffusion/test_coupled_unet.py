"""The coupled U-Net against the official one at a tiny size."""

import json

import filled
from flax import nnx
import jax
import jax.numpy as jnp
from mm_diffusion import official
import numpy as np
import pytest

from foley_jax.interop import fill, registry
from foley_jax.mm_diffusion.models import coupled_unet
from foley_jax.runtime import network as network_lib

ARRAYS, META = official.golden("unet_tiny")
ATOL = 2e-4  # as tests/README.md says for networks; the official noise floor is 2e-5
SMALL = {
    "model_channels": 32,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "cross_attention_downsamples": (1, 2),
    "cross_attention_windows": (1, 2),
    "video_attention_downsamples": (2,),
    "head_channels": 16,
    "num_frames": 4,
}
FLAT = {**SMALL, "channel_mult": (1,), "video_attention_downsamples": ()}  # compiles faster


@pytest.fixture(scope="module")
def tiny():
    return official.tiny()


@pytest.fixture(scope="module")
def run(tiny):
    graphdef, state = nnx.split(tiny)

    @filled.jit
    def call(state, *args):
        return nnx.merge(graphdef, state)(*args)

    return lambda *args: call(nnx.to_pure_dict(state), *args)


def build(config=SMALL, **fields):
    return filled.module(lambda keys: coupled_unet.CoupledUNet(**{**config, **fields}, rngs=keys))


@pytest.fixture(scope="module")
def small():
    return build()


def clip(b=1, f=4, h=4, w=4, length=32):
    """Noisy video and audio, steps."""
    rng = np.random.default_rng(0)
    video = rng.standard_normal((b, f, h, w, 3), np.float32)
    return video, rng.standard_normal((b, length, 1), np.float32), np.arange(b) + 7


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shift0", "shift_i"])
def test_equals_official(run, name):
    video = official.inputs("tiny.video", (2, 16, 3, 16, 16))
    audio = official.inputs("tiny.audio", (2, 1, 1024))
    shifts = official.shifts(name, "unet_tiny")
    got = run(video, audio, jnp.asarray(META["t"]), shifts)
    for modality, y in zip(("video", "audio"), got):
        assert y.dtype == jnp.float32
        want = official.channels_last(ARRAYS[f"{name}/{modality}"])
        np.testing.assert_allclose(y, want, atol=ATOL)


def test_paper_configuration():
    model = network_lib.shapes(lambda keys: coupled_unet.CoupledUNet(rngs=keys))
    params = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sum(np.prod(p.shape) for p in params) == 133_675_524
    assert model.num_shifts == 15
    assert model.windows == (1, 1, 4, 4, 8, 8, 8, 8, 8, 4, 4, 4, 1, 1, 1)
    assert model.shift_limits() == (15, 15, 12, 12, 8, 8, 8, 8, 8, 12, 12, 12, 15, 15, 15)
    assert model.shift_limits(8) == (7, 7, 4, 4, 0, 0, 0, 0, 0, 4, 4, 4, 7, 7, 7)
    with pytest.raises(ValueError, match="clip of 6 frames"):
        model.shift_limits(6)


def test_drawn_shifts_reach_both_ends(tiny):
    keys = jax.random.split(jax.random.key(0), 400)
    drawn = np.asarray(jax.jit(jax.vmap(tiny.draw_shifts))(keys))
    assert drawn.dtype == np.int32 and drawn.shape == (400, 15)
    np.testing.assert_array_equal(drawn.min(0), 0)
    np.testing.assert_array_equal(drawn.max(0), tiny.shift_limits())


def test_official_keys_are_recognised():
    """That each finds its place, the fixture proves: the converter is strict."""
    kind = registry.kinds()["mm_diffusion/base"]
    keys = json.loads((official.GOLDENS / "base_keys.json").read_text())
    assert fill.has_signature(kind, keys)
    assert not fill.has_signature(kind, [k for k in keys if "middle_blocks" not in k])


def traced_gradient(remat):
    """The gradient's program, not compiled yet, and its arguments."""
    model = build(FLAT, num_res_blocks=0, remat=remat)
    graphdef, state = nnx.split(model)
    video, audio, t = clip()
    shifts = jnp.asarray([2], jnp.int32)

    def loss(state, shifts):
        return sum((y**2).mean() for y in nnx.merge(graphdef, state)(video, audio, t, shifts))

    state = nnx.to_pure_dict(state)
    return filled.jit(jax.grad(loss)).trace(state, shifts), (state, shifts)


@pytest.mark.slow
@pytest.mark.parametrize("remat", [False, True])
def test_remat_computes_again_what_it_is_asked_to(remat):
    text = str(traced_gradient(remat)[0].jaxpr)
    assert ("checkpoint[" in text or "remat2[" in text) == remat


@pytest.mark.slow
def test_remat_keeps_the_shifts():
    """The official code recomputes every window under a new one."""
    programs = [traced_gradient(remat) for remat in (False, True)]
    plain, again = (traced.lower().compile()(*args) for traced, args in programs)
    # kernels before a norm have gradients that cancel: all leaves against one scale
    plain, again = (np.concatenate([g.ravel() for g in jax.tree.leaves(x)]) for x in (plain, again))
    assert np.isfinite(plain).all() and np.abs(plain).max() > 0
    np.testing.assert_allclose(plain, again, atol=1e-5 * np.abs(plain).max())


@pytest.mark.slow
def test_other_sizes_and_shifts_in_one_network(small):
    """Frames that are no power of two, and audio that they do not divide."""
    graphdef, state = nnx.split(small)
    call = filled.jit(lambda state, *args: nnx.merge(graphdef, state)(*args))
    state = nnx.to_pure_dict(state)
    args = clip(b=2, f=3, h=6, w=2, length=44)
    zero = call(state, *args, jnp.zeros(small.num_shifts, jnp.int32))
    assert zero[0].shape == args[0].shape and zero[1].shape == args[1].shape
    for i, limit in enumerate(small.shift_limits(3)):
        shifts = jnp.zeros(small.num_shifts, jnp.int32).at[i].set(limit)
        moved = call(state, *args, shifts)
        assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(zero, moved)), i


@pytest.mark.slow
def test_bfloat16_stays_close():
    args = (*clip(), jnp.zeros(3, jnp.int32))
    results = []
    for dtype in (jnp.float32, jnp.bfloat16):
        graphdef, state = nnx.split(build(FLAT, dtype=dtype))
        call = filled.jit(lambda state, *args: nnx.merge(graphdef, state)(*args))  # noqa: B023
        results.append(call(nnx.to_pure_dict(state), *args))
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
    for want, got in zip(*results):
        assert got.dtype == jnp.float32
        assert 0 < np.sqrt(np.mean((want - got) ** 2)) < 0.05 * np.std(want)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"h": 5}, "5x4 pixels"),
        ({"length": 34}, "34 samples"),
        ({"f": 1}, "clip of 1 frames"),
        ({"length": 8}, "2 audio samples for 4 frames"),
    ],
)
def test_clips_that_do_not_fit(small, size, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(small, *clip(**size), jnp.zeros(6, jnp.int32))


@pytest.mark.parametrize("shifts", [np.zeros(5, np.int32), np.zeros(6, np.float32)])
def test_shifts_of_another_network(small, shifts):
    with pytest.raises(ValueError, match=r"expected int32 \(6,\)"):
        jax.eval_shape(small, *clip(), jnp.asarray(shifts))


def test_fields_that_contradict():
    with pytest.raises(ValueError, match="cross_attention_windows"):
        build(cross_attention_windows=(1,))
    with pytest.raises(ValueError, match="head_channels=24"):
        build(head_channels=24)
    with pytest.raises(ValueError, match="no field windows"):
        coupled_unet.from_config({"windows": (1,)}, rngs=nnx.Rngs(0))


def call(model, *args):
    graphdef, state = nnx.split(model)
    run = filled.jit(lambda state, *args: nnx.merge(graphdef, state)(*args))
    return [np.asarray(y) for y in run(nnx.to_pure_dict(state), *args)]


@pytest.mark.slow
def test_without_cross_attention_neither_modality_hears_of_the_other():
    fields = {"cross_attention_downsamples": (), "cross_attention_windows": ()}
    shifts = jnp.zeros((0,), jnp.int32)
    video, audio, t = clip()
    for middle in (False, True):
        model = build(FLAT, **fields, middle_cross_attention=middle)
        plain = call(model, video, audio, t, shifts)
        other = call(model, -video, audio, t, shifts)
        heard = np.abs(other[1] - plain[1]).max()
        assert (heard > 1e-3) == middle


def test_windows_without_random_shift_stay_where_they_are():
    model = build(FLAT, random_shift=False)
    keys = jax.random.split(jax.random.key(0), 20)
    assert not np.any([model.draw_shifts(key) for key in keys])


@pytest.mark.slow
def test_patches_are_channels_inside_and_pixels_outside():
    model = build(FLAT, video_patch=2, audio_patch=8)
    video, audio, t = clip()
    back = model._unfold(*model._fold(jnp.asarray(video), jnp.asarray(audio)))
    np.testing.assert_array_equal(back[0], video)
    np.testing.assert_array_equal(back[1], audio)
    shifts = jnp.zeros((model.num_shifts,), jnp.int32)
    got = call(model, video, audio, t, shifts)
    assert [y.shape for y in got] == [video.shape, audio.shape]
    with pytest.raises(ValueError, match="multiples of 2 and a number of samples that is one of 8"):
        model(video[:, :, :3], audio, t, shifts)
