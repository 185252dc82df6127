"""The flow network against the official one in small sizes, its conditions and its refusals."""

import functools

import filled
from flax import nnx, traverse_util
from goldens import fill
import jax
import jax.numpy as jnp
import mmaudio_goldens as official
import numpy as np
import pytest

from foley_jax.mmaudio.models import flow_network, time_embedding
from foley_jax.runtime import network

pytestmark = pytest.mark.usefixtures("quick_compilation")
LIMIT = 1e-5  # relative L2: float32 in another order; the official code against float64: 1e-6
# the weights are tiny there, and the norms' epsilons decide
EPSILON_LIMIT = 3e-5
GRADIENT_LIMIT = 3e-5


def _flow(model, x):
    conditions = model.preprocess_conditions(x["clip"], x["sync"], x["text"])
    return model.predict_flow(x["latent"], x["t"], conditions), conditions


@functools.cache
def _program(name):
    """Returns the compiled outputs of the small network's state and inputs."""
    graphdef, _ = nnx.split(official.tiny(name))

    def outputs(state, x):
        model = nnx.merge(graphdef, state)
        flow, conditions = _flow(model, x)
        return {
            "flow": flow,
            "clip_f": conditions.clip_BVD,
            "sync_f": conditions.sync_BSD[:, flow_network.stretched(16, 20)],
            "text_f": conditions.text_BTD,
            "clip_f_c": model.clip_cond_proj(conditions.clip_BVD.mean(1)),
            "text_f_c": model.text_cond_proj(conditions.text_BTD.mean(1)),
            "t_embed": model.t_embed(x["t"]),
        }

    return filled.jit(outputs)


def _outputs(name, model):
    state = nnx.to_pure_dict(nnx.state(model))
    return jax.device_get(_program(name)(state, official.tiny_inputs(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "tiny_v2"])
def test_flow_and_conditions_match_the_official_network(name):
    want = official.golden(name)
    for part, got in _outputs(name, official.tiny(name)).items():
        assert official.distance(got, want[part]) <= LIMIT, part


@pytest.mark.slow
def test_lengths_come_from_the_arguments():
    x = {
        "latent": official.inp("tiny_latent_long", (1, 33, 8)),
        "clip": fill.unit_rows(official.inp("tiny_clip_long", (1, 13, 16))),
        "sync": official.inp("tiny_sync_long", (1, 24, 24)),
        "text": official.tiny_inputs("tiny")["text"][:1],
        "t": np.asarray([0.05], np.float32),
    }
    got = official.run(official.tiny("tiny"), lambda model, x: _flow(model, x)[0], x)
    want = official.golden("tiny")["flow_other_lengths"]
    assert official.distance(got, want) <= LIMIT


def _few_queries_and_keys(key, value):
    if ".attn.qkv." not in key:
        return value
    rows = np.where(np.arange(len(value)) % 3 < 2, 3e-4, 1).astype(np.float32)
    return value * rows.reshape(-1, *[1] * (value.ndim - 1))


def _small_streams(key, value):
    ends = ("linear1.weight", "linear1.bias", "ffn.w2.weight", "1.w2.weight", "2.w2.weight")
    return value * np.float32(0.01) if key.endswith(ends) else value


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "tiny_v2"])
def test_norms_have_the_official_epsilons(name):
    want, state = official.golden(f"{name}_more"), official.state(name, name)
    for case, change in (("eps_rms", _few_queries_and_keys), ("eps_ln", _small_streams)):
        changed = {key: change(key, value) for key, value in state.items()}
        got = _outputs(name, official.tiny_of(name, changed))["flow"]
        assert official.distance(got, want[f"{case}/flow"]) <= EPSILON_LIMIT, case


def test_frequencies_are_those_of_torch():
    for name, width, scale in (("tiny", 256, 1.0), ("tiny_v2", 64, 10000.0)):
        want = official.golden(f"{name}_more")["frequencies"]
        np.testing.assert_allclose(time_embedding.frequencies(width, scale), want, rtol=1.2e-7)


@pytest.mark.slow
def test_gradients_match_the_official_training_step():
    want, x = official.golden("tiny"), official.tiny_inputs("tiny")
    x1 = official.inp("tiny_x1", (3, 20, 8))

    def outputs(model, x, x1):
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)

        def mean_loss(params):
            x0, t = x["latent"], x["t"].reshape(-1, 1, 1)
            point = {**x, "latent": (1 - t) * x0 + t * x1}
            flow = _flow(nnx.merge(graphdef, params, rest), point)[0]
            losses = jnp.square(flow - (x1 - x0)).mean((1, 2))
            return losses.mean(), losses

        return jax.grad(mean_loss, has_aux=True)(params)

    gradients, losses = official.run(official.tiny("tiny"), outputs, x, x1)
    np.testing.assert_allclose(losses, want["train/loss"], rtol=1e-5)
    got = {
        "/".join(map(str, path)): np.asarray(value)
        for path, value in traverse_util.flatten_dict(nnx.to_pure_dict(gradients)).items()
    }
    qkv = got["joint_blocks/0/clip_block/attn/qkv/kernel"]  # columns of q, k, v one by one
    theirs = {
        "audio_input_proj.0.weight": got["audio_input_proj/layer/kernel"].T,
        "joint_blocks.0.clip_block.attn.qkv.weight": qkv.T.reshape(3, 64, 64)
        .swapaxes(0, 1)
        .reshape(192, 64),
        "joint_blocks.0.latent_block.attn.q_norm.weight": got[
            "joint_blocks/0/latent_block/attn/q_norm/scale"
        ],
        "joint_blocks.1.latent_block.ffn.w2.weight": got[
            "joint_blocks/1/latent_block/ffn/w2/kernel"
        ].T,
        "fused_blocks.1.adaLN_modulation.1.bias": got["fused_blocks/1/modulation/linear/bias"],
        "final_layer.conv.weight": got["final_layer/conv/kernel"].T,
        "sync_pos_emb": got["sync_pos_emb"],
        "t_embed.mlp.0.weight": got["t_embed/first/kernel"].T,
    }
    for key, gradient in theirs.items():
        error = official.distance(gradient, want[f"train/grad/{key}"])
        assert error <= GRADIENT_LIMIT, key


def test_empty_conditions_are_those_of_the_stored_features():
    def both(model, negative):
        empty = model.empty_clip(3, 8), model.empty_sync(3, 16)
        text = jnp.broadcast_to(model.empty_string_feat[...][None], (3, 11, 16))
        return (
            (
                model.empty_conditions(3, negative, **official.LENGTHS),
                model.empty_conditions(3, **official.LENGTHS),
            ),
            tuple(model.preprocess_conditions(*empty, text) for text in (negative, text)),
        )

    negative = official.tiny_inputs("tiny")["negative"]
    got, want = official.run(official.tiny("tiny"), both, negative)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, want)
    assert np.abs(got[0].text_BTD - got[1].text_BTD).max() > 0.1


def test_sources_of_stretched_features_are_those_of_float32():
    sources = flow_network.stretched(192, 345)
    assert (sources[57], sources[172]) == (31, 95)
    assert sources[0] == 0 and sources[-1] == 191


@pytest.mark.slow
def test_bfloat16_keeps_times_in_float32():
    model, x = official.tiny("tiny_v2"), official.tiny_inputs("tiny_v2")
    half = network.shapes(
        lambda rngs: flow_network.FlowNetwork(
            **official.TINY, v2=True, dtype=jnp.bfloat16, rngs=rngs
        )
    )
    half = nnx.merge(nnx.split(half)[0], nnx.state(model))
    got, time = official.run(half, lambda model, x: (_flow(model, x)[0], model.t_embed(x["t"])), x)
    want = official.golden("tiny_v2")
    assert got.dtype == np.float32
    assert 1e-4 < official.distance(got, want["flow"]) < 0.03
    assert official.distance(time, want["t_embed"]) <= LIMIT


def test_wrong_shapes_are_refused():
    model, x = official.tiny("tiny"), official.tiny_inputs("tiny")
    with pytest.raises(ValueError, match="12 synchronisation features"):
        model.preprocess_conditions(x["clip"], x["sync"][:, :12], x["text"])
    with pytest.raises(ValueError, match=r"CLIP features have shape .* 16\]"):
        model.preprocess_conditions(x["sync"], x["sync"], x["text"])
    with pytest.raises(ValueError, match=r"latents have shape .* 8\]"):
        model.predict_flow(x["sync"], x["t"], None)
    with pytest.raises(ValueError, match="negative text of 3 examples"):
        model.empty_conditions(2, x["negative"], **official.LENGTHS)
