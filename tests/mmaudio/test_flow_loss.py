"""The training step of the small flow network against the official one."""

import json

from flax import nnx, traverse_util
from goldens import fill
import jax
import jax.numpy as jnp
import mmaudio_goldens
import numpy as np
import pytest

from foley_jax.mmaudio.tasks import flow_loss

pytestmark = pytest.mark.usefixtures("quick_compilation")
ATTENTION = "joint_blocks/0/clip_block/attn"
LIMIT, GRADIENT_LIMIT = 1e-5, 3e-5  # relative L2: float32 in another order


def inp(name, shape):
    return mmaudio_goldens.inp(f"train_{name}", shape)


def weights():
    state = mmaudio_goldens.state("tiny", "tiny")
    state["latent_mean"] = inp("latent_mean", (8,)).reshape(1, 1, 8)
    state["latent_std"] = np.exp(np.float32(0.3) * inp("latent_std", (8,))).reshape(1, 1, 8)
    return state


def step():
    """The batch and all that is drawn for it."""
    yes = lambda *without: ~np.isin(np.arange(6), without)  # noqa: E731
    batch = {
        "mean_BNC": inp("mean", (6, 20, 8)),
        "std_BNC": np.exp(np.float32(0.3) * inp("std", (6, 20, 8))),
        "clip_BVD": fill.unit_rows(inp("clip", (6, 8, 16))),
        "sync_BSD": inp("sync", (6, 16, 24)),
        "text_BTD": fill.unit_rows(inp("text", (6, 11, 16))),
        "has_video_B": yes(1),
        "has_text_B": yes(3),
    }
    draws = flow_loss.Draws(
        posterior_BNC=inp("noise", (6, 20, 8)),
        noise_BNC=inp("x0", (6, 20, 8)),
        times_B=np.asarray(jax.nn.sigmoid(inp("t", (6,)))),
        drop_video_B=~yes(2, 5),
        drop_text_B=~yes(4, 5),
    )
    return batch, draws


@pytest.mark.slow  # compiles for long
def test_loss_and_gradients_are_the_official_ones():
    want = mmaudio_goldens.golden("train")

    def gradients(model, batch, draws):
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)

        def mean_loss(params):
            loss_B, x1_BNC = flow_loss.loss(nnx.merge(graphdef, params, rest), batch, draws)
            return loss_B.mean(), (loss_B, x1_BNC)

        return jax.grad(mean_loss, has_aux=True)(params)

    model = mmaudio_goldens.tiny_of("tiny", weights())
    found, (loss_B, x1_BNC) = mmaudio_goldens.run(model, gradients, *step())
    assert mmaudio_goldens.distance(x1_BNC, want["x1"]) <= LIMIT
    assert mmaudio_goldens.distance(loss_B, want["loss"]) <= LIMIT
    got = {
        "/".join(map(str, path)): np.asarray(value)
        for path, value in traverse_util.flatten_dict(nnx.to_pure_dict(found)).items()
    }
    total = np.sqrt(sum(np.square(g.astype(np.float64)).sum() for g in got.values()))
    np.testing.assert_allclose(total, want["total_norm"][0], rtol=LIMIT)
    ours = {
        "empty_clip_feat": "empty_clip_feat",
        "empty_sync_feat": "empty_sync_feat",
        "sync_pos_emb": "sync_pos_emb",
        "clip_input_proj.1.w1.weight": "clip_input_proj/mlp/w1/kernel",
        "text_cond_proj.weight": "text_cond_proj/kernel",
        "global_cond_mlp.w2.weight": "global_cond_mlp/w2/kernel",
        f"{ATTENTION.replace('/', '.')}.k_norm.weight": f"{ATTENTION}/k_norm/scale",
        "fused_blocks.0.linear1.weight": "fused_blocks/0/linear1/kernel",
        "final_layer.adaLN_modulation.1.bias": "final_layer/modulation/linear/bias",
        "t_embed.mlp.2.weight": "t_embed/second/kernel",
    }
    for theirs, own in ours.items():
        gradient = got[own].T if own.endswith("kernel") else got[own]
        assert mmaudio_goldens.distance(gradient, want[f"grad/{theirs}"]) <= GRADIENT_LIMIT, theirs
    # norms of all, in whatever order: q, k and v stand in other columns here
    norms = sorted(np.linalg.norm(g.astype(np.float64)) for g in got.values())
    assert len(norms) == len(
        json.loads((mmaudio_goldens.GOLDENS / "train_grad_names.json").read_text())
    )
    np.testing.assert_allclose(norms, np.sort(want["grad_norms"]), rtol=1e-4)


def test_evaluation_drops_nothing_and_training_a_tenth():
    draws = flow_loss.draw((4, 2, 1), jax.random.key(0), train=False)
    assert not draws.drop_video_B.any() and not draws.drop_text_B.any()
    assert (jnp.diff(draws.times_B) > 0).all()
    draws = flow_loss.draw((20000, 1, 1), jax.random.key(0), train=True)
    video, text = draws.drop_video_B, draws.drop_text_B
    assert abs(float(video.mean()) - 0.1) < 0.01 and abs(float(text.mean()) - 0.1) < 0.01
    assert abs(float((video & text).mean()) - 0.01) < 0.004  # independently
