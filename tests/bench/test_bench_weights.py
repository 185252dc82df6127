"""Official names that the converter takes, strictly and to the last bit."""

from flax import nnx
import jax
import ml_collections
import numpy as np
import pytest

from foley_jax.bench import weights
from foley_jax.interop import registry
from foley_jax.runtime import network as network_lib
from tests import official_keys

pytestmark = pytest.mark.usefixtures("quick_compilation")
TABLES = ("betas", "alphas_cumprod", "posterior_", "scale_factor", "first_stage_model.loss")
SMALL = {
    "diff_foley/cavp": {
        "embed_dim": 8,
        "video": {"depths": (1, 1), "width": 4, "inflate": (False, True)},
        "audio": {"channels": (2, 2, 4, 4, 4, 8), "num_mels": 16},
    },
    "diff_foley/ldm": {
        "unet": {
            "model_channels": 32,
            "channel_mult": (1, 1),
            "num_res_blocks": 1,
            "attention_downsamples": (2,),
            "context_dim": 8,
        },
        "autoencoder": {"ch": 32, "ch_mult": (1, 2), "num_res_blocks": 1},
        "conditioner": {"in_dim": 4, "out_dim": 8},
    },
    "diff_foley/guidance_classifier": {
        "classifier": {"model_channels": 32, "channel_mult": (1, 1), "context_dim": 8},
        "conditioner": {"in_dim": 4, "out_dim": 8},
    },
    "mm_diffusion/base": {
        "model_channels": 32,
        "channel_mult": (1, 2),
        "num_res_blocks": 1,
        "head_channels": 32,
        "cross_attention_downsamples": (2,),
        "cross_attention_windows": (2,),
        "video_attention_downsamples": (2,),
    },
    "mm_diffusion/super_resolution": {
        "model_channels": 32,
        "channel_mult": (1, 2),
        "num_res_blocks": 1,
        "attention_downsamples": (2,),
    },
    "mmaudio/small_16k": {"width": 32, "num_heads": 2, "depth": 3, "fused_depth": 2},
}


def build(kind, **overrides):
    description = registry.kinds()[kind]
    model = ml_collections.ConfigDict({**description.model, **overrides})
    return lambda keys: description.build(model, rngs=keys)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALL)
def test_the_converter_takes_them_back(kind):
    network = weights.network(build(kind, **SMALL[kind]))
    official = weights.official(kind, network.state)
    back = registry.from_state_dict(kind, official, **SMALL[kind])
    state = nnx.to_pure_dict(nnx.state(back))
    assert jax.tree.structure(state) == jax.tree.structure(dict(network.state))
    jax.tree.map(np.testing.assert_array_equal, state, dict(network.state))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALL)
def test_full_size_names_and_shapes_are_the_published_ones(kind):
    _, abstract = nnx.split(network_lib.shapes(build(kind)))
    # no memory: every element is the same zero
    state = jax.tree.map(
        lambda x: np.broadcast_to(np.float32(0), x.shape), nnx.to_pure_dict(abstract)
    )
    got = {key: list(x.shape) for key, x in weights.official(kind, state).items()}
    listed = official_keys.of(kind)
    want = {key: shape for key, (shape, _) in listed.items() if "num_batches" not in key}
    got.pop("scale_factor", None)
    missing = [k for k in set(want) - set(got) if not any(table in k for table in TABLES)]
    assert not [k for k in missing if "sqrt_" not in k and "log_one" not in k]
    assert not set(got) - set(want)
    assert {key: want[key] for key in got} == got


def test_values_depend_on_name_and_seed_alone():
    one = weights.value("a/kernel", (3, 4))
    np.testing.assert_array_equal(one, weights.value("a/kernel", (3, 4)))
    assert not np.array_equal(one, weights.value("b/kernel", (3, 4)))
    assert not np.array_equal(one, weights.value("a/kernel", (3, 4), seed=1))
    assert weights.value("x/var", (100,)).min() > 0.5
    assert abs(weights.value("x/scale", (1000,)).mean() - 1) < 0.02
    # what goes in with deviation 1 comes out with deviation 1
    wide = weights.value("x/kernel", (3, 3, 64, 128))
    assert wide.std() == pytest.approx(1 / np.sqrt(9 * 64), rel=0.02)


def test_an_unknown_kind_is_said():
    with pytest.raises(ValueError, match="no official names for 'vggish'"):
        weights.official("vggish", {})
