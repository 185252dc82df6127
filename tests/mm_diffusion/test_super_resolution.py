"""The super-resolution U-Net against the official one at a tiny size."""

import functools
import json

import filled
from flax import nnx
import jax
import jax.numpy as jnp
from mm_diffusion import official
import numpy as np
import pytest

from foley_jax.interop import fill, registry
from foley_jax.mm_diffusion.models import super_resolution
from foley_jax.runtime import network as network_lib

ARRAYS, META = official.golden("sr_tiny")
BLOCKS, BLOCKS_META = official.golden("blocks")
ATOL = 2e-4  # as tests/README.md says for networks; the official noise floor is 4e-6
BLOCK_ATOL = 1e-5  # as tests/README.md says
TINY = {"model_channels": 32, "channel_mult": (1, 2, 3, 4)}
SMALL = {
    "model_channels": 32,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention_downsamples": (2,),
    "num_heads": 2,
}
FLAT = {"channel_mult": (1,), "attention_downsamples": ()}  # compiles faster


def build(**fields):
    return filled.module(
        lambda keys: super_resolution.SuperResolution(**{**SMALL, **fields}, rngs=keys)
    )


def images(b=2, side=8, low=4, channels=3):
    """Noisy large images, small images, steps."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((b, side, side, channels), np.float32)
    return x, rng.standard_normal((b, low, low, channels), np.float32), np.arange(b) + 7


def run(model, *args):
    graphdef, state = nnx.split(model)
    call = filled.jit(lambda state, *args: nnx.merge(graphdef, state)(*args))
    return call(nnx.to_pure_dict(state), *args)


def official_values():
    return official.state("sr_tiny_keys", official.PREFIX + "sr_tiny:")


@pytest.mark.slow
def test_equals_official():
    model = registry.from_state_dict("mm_diffusion/super_resolution", official_values(), **TINY)
    x = np.moveaxis(official.fill.inp("sr_tiny.x", (2, 3, 64, 64), official.PREFIX), 1, -1)
    low = np.moveaxis(official.fill.inp("sr_tiny.low", (2, 3, 16, 16), official.PREFIX), 1, -1)
    got = run(model, x, low.clip(-1, 1), jnp.asarray(META["t"]))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, np.moveaxis(ARRAYS["out"], 1, -1), atol=ATOL)


def check_block(name, build, time=True):
    """One block against its golden."""
    about = BLOCKS_META["blocks"][name]
    args = [
        official.fill.inp(*x, official.PREFIX) for x in zip(about["input_names"], about["inputs"])
    ]
    args[0] = np.moveaxis(args[0], 1, -1)
    if time:
        args[1] = jax.nn.silu(args[1])  # our blocks take the embedding after its SiLU
    kind = "mm_diffusion/super_resolution"
    module = official.part(build, about["keys"], f"{official.PREFIX}{name}.", model=kind)
    got = np.moveaxis(run(module, *args), -1, 1)
    np.testing.assert_allclose(got, BLOCKS[f"{name}/out0"], atol=BLOCK_ATOL)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("sr_res_same", "none"),
        ("sr_res_change", "none"),
        ("sr_res_down", "down"),
        ("sr_res_up", "up"),
    ],
)
def test_residual_block(name, how):
    about = BLOCKS_META["blocks"][name]
    weight = about["keys"]["in_layers.2.weight"]
    time_dim = about["keys"]["emb_layers.1.weight"][1]
    check_block(
        name,
        functools.partial(
            super_resolution.ResBlock, weight[1], weight[0], time_dim=time_dim, resample=how
        ),
    )


def test_attention_splits_heads_first():
    channels = BLOCKS_META["blocks"]["sr_attn"]["keys"]["norm.weight"][0]
    build = functools.partial(super_resolution.HeadwiseAttention, channels, dtype=jnp.float32)
    check_block("sr_attn", build, time=False)


def test_paper_configuration():
    model = network_lib.shapes(lambda keys: super_resolution.SuperResolution(rngs=keys))
    params = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sum(np.prod(p.shape) for p in params) == 311_027_910


def test_the_upsampler_of_guided_diffusion_is_the_same_but_for_its_classes():
    values = official_values()
    classes = {"label_emb.weight": np.zeros((10, 128), np.float32)}
    with pytest.raises(fill.ConversionError, match="label_emb.weight"):
        registry.from_state_dict("mm_diffusion/super_resolution", {**values, **classes}, **TINY)
    kind = registry.kinds()["guided_diffusion/upsampler_64_256"]
    model, filled_in = registry._module(kind, {**values, **classes}, TINY, False)
    assert "ImageNet" in filled_in.ignored["label_emb.weight"]
    np.testing.assert_array_equal(
        model.conv_out.kernel[...], values["out.2.weight"].transpose(2, 3, 1, 0)
    )


def test_official_keys_are_recognised(tmp_path):
    torch = pytest.importorskip("torch")
    keys = json.loads((official.GOLDENS / "sr_tiny_keys.json").read_text())
    state = {key: torch.zeros(()) for key in keys}
    torch.save(state, tmp_path / "model.pt")
    assert registry.recognise(tmp_path / "model.pt") == "mm_diffusion/super_resolution"
    state["label_emb.weight"] = torch.zeros(())
    torch.save(state, tmp_path / "model.pt")
    assert registry.recognise(tmp_path / "model.pt") == "guided_diffusion/upsampler_64_256"


def traced_gradient(model):
    """The gradient's program, not compiled yet, and its argument."""
    graphdef, state = nnx.split(model)
    args = images()

    def loss(state):
        return (nnx.merge(graphdef, state)(*args) ** 2).mean()

    state = nnx.to_pure_dict(state)
    return filled.jit(jax.grad(loss)).trace(state), state


@pytest.mark.slow
@pytest.mark.parametrize("remat", [False, True])
def test_remat_computes_again_what_it_is_asked_to(remat):
    text = str(traced_gradient(build(**FLAT, remat=remat))[0].jaxpr)
    assert ("checkpoint[" in text or "remat2[" in text) == remat


@pytest.mark.slow
def test_remat_changes_no_gradient():
    programs = [traced_gradient(build(**FLAT, remat=remat)) for remat in (False, True)]
    plain, again = (traced.lower().compile()(state) for traced, state in programs)
    # kernels before a norm have gradients that cancel: all leaves against one scale
    plain, again = (np.concatenate([g.ravel() for g in jax.tree.leaves(x)]) for x in (plain, again))
    assert np.isfinite(plain).all() and np.abs(plain).max() > 0
    np.testing.assert_allclose(plain, again, atol=1e-5 * np.abs(plain).max())


@pytest.mark.slow
def test_bfloat16_stays_close():
    want, got = (
        run(build(**FLAT, dtype=dtype), *images()) for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert got.dtype == jnp.float32 and got.shape == (2, 8, 8, 6)
    assert 0 < np.sqrt(np.mean((want - got) ** 2)) < 0.05 * np.std(want)


@pytest.mark.slow
def test_the_small_image_matters_and_may_have_any_size():
    model = build(**FLAT)
    x, low, t = images()
    assert np.abs(run(model, x, low, t) - run(model, x, 0 * low, t)).max() > 1e-2
    plain = np.ones((2, 5, 3, 3), np.float32)  # however large: the same grey
    np.testing.assert_allclose(
        run(model, x, plain, t), run(model, x, plain[:, :1, :1], t), atol=1e-5
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (images(side=7), "7x7 pixels"),
        (images(channels=1), "1 channels"),
        ((*images()[:2], np.arange(3)), r"steps of shape \(3,\)"),
        ((*(x[None] for x in images()[:2]), np.arange(2)), "put the frames of a clip"),
    ],
)
def test_images_that_do_not_fit(args, message):
    model = network_lib.shapes(lambda keys: super_resolution.SuperResolution(**SMALL, rngs=keys))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model, *args)


def test_fields_that_contradict():
    with pytest.raises(ValueError, match="no field large_size"):
        super_resolution.from_config({"large_size": 256}, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="into 5 heads"):
        build(num_heads=5)
