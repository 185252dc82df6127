"""Both alignment classifiers, full size, against the official networks (float32, seeded weights).

`raw_ctx` is what the published sampler feeds the classifier, `embedded_ctx` what training does.
"""

from flax import nnx
import full_size
from goldens import fill
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diffusion import gaussian, guidance, schedule
from foley_jax.interop import registry
from foley_jax.layers import embedding

pytestmark = pytest.mark.slow
PREFIX = full_size.PREFIX
# absolute, for activations scaled to unit deviation; the official code differs from itself by
# 5e-6 when its float32 sums are re-ordered
ATOL = 2e-4
# relative to the gradient's own deviation; the official gradient differs from itself by 2e-6
GRADIENT_RTOL = TERM_RTOL = 1e-3
PROB_ATOL = 2e-6  # the official code differs from itself by 1.2e-7


@pytest.fixture(scope="module")
def golden():
    with np.load(full_size.GOLDENS / "classifier.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def guide():
    return registry.from_state_dict("diff_foley/guidance_classifier", full_size.state("classifier"))


@pytest.fixture(scope="module")
def judge():
    return registry.from_state_dict(
        "diff_foley/eval_classifier", full_size.state("eval_classifier")
    )


def _close(name: str, got: np.ndarray, want: np.ndarray, atol: float, scale: float) -> None:
    assert got.shape == want.shape, name
    worst = float(np.abs(got - want).max()) / scale
    print(f"{name:40s} worst {worst:.1e} (limit {atol:.0e})")
    np.testing.assert_allclose(got / scale, want / scale, rtol=0, atol=atol, err_msg=name)


def _walk(classifier, x, t_B, context):
    """Activations by official name."""
    out = {}
    time = classifier.time_embed[0](embedding.timestep_embedding(t_B, classifier.model_channels))
    out["time_embed"] = classifier.time_embed[1](jax.nn.silu(time))
    h, skips = classifier.down(classifier.runner(x, t_B, context, None, None), x)
    for i, skip in enumerate(skips):
        out[f"input_blocks.{i}"] = skip
    out["middle_block"] = h
    out["out"] = classifier.conv_out(jax.nn.silu(classifier.norm_out(h)))
    return out


CASES = {
    "raw_ctx": {"embed": False},
    "embedded_ctx": {"embed": True},
    "normal_ctx": {"embed": False},
}


@pytest.mark.parametrize("case", CASES)
def test_classifier(guide, golden, case):
    x = full_size.last(fill.inp("cls_x", (2, 4, 16, 64), PREFIX))
    t_B, embed = np.float32([500, 12.25]), CASES[case]["embed"]
    features = fill.unit_rows(fill.inp("cls_feat", (2, 33, 512), PREFIX))
    if case == "normal_ctx":
        features = fill.inp("cls_ctx_normal", (2, 32, 512), PREFIX)

    def run(model, x, t_B, features):
        def log_prob(x):
            return model.log_prob(x, t_B, features, embed=embed).sum()

        context = model.conditioner(features) if embed else features
        logit_B = model.logits(x, t_B, features, embed=embed)
        return _walk(model.classifier, x, t_B, context), logit_B, jax.grad(log_prob)(x)

    hooks, logit_B, gradient = full_size.jitted(guide, run, x, t_B, features)
    names = [key.removeprefix(f"{case}/") for key in golden if key.startswith(f"{case}/")]
    hooked = sorted(set(names) & set(hooks))
    assert len(hooked) == 6 and len(names) == 9
    for name in hooked:
        value, want = hooks[name], golden[f"{case}/{name}"]
        if value.ndim == 4:
            value = full_size.first(value)[:, ::4, ::2, ::2]
        _close(f"{case}/{name}", value, want, ATOL, max(1.0, float(want.std())))
    prob_B = 1 / (1 + np.exp(-logit_B.astype(np.float64)))
    _close(f"{case}/logit", logit_B[:, None], golden[f"{case}/logit"], 4 * PROB_ATOL, 1.0)
    _close(f"{case}/prob", prob_B[:, None], golden[f"{case}/prob"], PROB_ATOL, 1.0)
    want = golden[f"{case}/grad_logp_x"]
    _close(f"{case}/grad", full_size.first(gradient), want, GRADIENT_RTOL, float(want.std()))


def test_embedded_rows(guide, golden):
    features = fill.unit_rows(fill.inp("cls_feat", (2, 33, 512), PREFIX))
    got = full_size.jitted(guide, lambda model, features: model.conditioner(features), features)
    _close("cond_model_out", got, golden["cond_model_out"], ATOL, 1.0)


def test_training_loss_on_noised_latents(guide, golden):
    x0 = full_size.last(fill.inp("bce_x0", (4, 4, 16, 64), PREFIX))
    noise = full_size.last(fill.inp("bce_noise", (4, 4, 16, 64), PREFIX))
    features = fill.unit_rows(fill.inp("bce_feat", (4, 32, 512), PREFIX))
    table, t_B = schedule.scaled_linear(), np.int32([3, 250, 500, 900])

    def run(model, x0, noise, features):
        x_t = gaussian.q_sample(table, x0, jnp.asarray(t_B), noise)
        logit_B = model.logits(x_t, jnp.asarray(t_B, jnp.float32), features)
        match_B = jnp.array([True, False, True, False])
        return logit_B, jax.nn.softplus(jnp.where(match_B, -logit_B, logit_B)).mean()

    logit_B, loss = full_size.jitted(guide, run, x0, noise, features)
    prob = 1 / (1 + np.exp(-logit_B.astype(np.float64)))
    _close("bce/prob", prob[:, None], golden["bce/prob"], PROB_ATOL, 1.0)
    _close("bce/loss", loss[None], golden["bce/loss"], 2 * PROB_ATOL, 1.0)


def test_evaluation_classifier_on_clean_latents(judge, golden):
    x0 = full_size.last(fill.inp("bce_x0", (4, 4, 16, 64), PREFIX))
    features = fill.unit_rows(fill.inp("bce_feat", (4, 32, 512), PREFIX))

    def run(model, x0, features):
        scale = model.latent_scale[...]
        return model.logits(x0, jnp.zeros(4), features), scale

    logit_B, scale = full_size.jitted(judge, run, x0, features)
    assert scale == np.float32(0.18215)
    prob = 1 / (1 + np.exp(-logit_B.astype(np.float64)))
    _close("eval/prob_t0", prob[:, None], golden["eval/prob_t0"], PROB_ATOL, 1.0)
    np.testing.assert_array_equal((prob > 0.5)[:, None], golden["eval/pred"])


def test_double_guidance_with_the_full_unet(guide, golden):
    ldm = registry.from_state_dict("diff_foley/ldm", full_size.state("ldm"))
    x = full_size.last(fill.inp("dg_x", (1, 4, 16, 64), PREFIX))
    features = fill.unit_rows(fill.inp("dg_feat", (1, 33, 512), PREFIX))
    table = schedule.scaled_linear()
    # the solver's time in (0, 1] -> model time
    t_B = np.float32([(0.52 - 1 / 1000) * 1000])
    graphdef, state = nnx.split(ldm)

    def run(guide, state, x, t_B, features):
        ldm = nnx.merge(graphdef, state)
        context = ldm.conditioner(features[:, :32])
        eps = guidance.classifier_free(ldm.denoise, context, jnp.zeros_like(context), 4.5)

        def log_prob(x, t_B):
            return guide.log_prob(x, t_B, features, embed=False)

        both = guidance.double_guidance(eps, log_prob, table, 50.0)
        return eps(x, t_B), both(x, t_B)

    plain, both = full_size.jitted(guide, run, nnx.to_pure_dict(state), x, t_B, features)
    _close("dg/eps_cfg_only", full_size.first(plain), golden["dg/eps_cfg_only"], ATOL, 1.0)
    _close("dg/eps_double_guided", full_size.first(both), golden["dg/eps_double_guided"], ATOL, 1.0)
    want = golden["dg/classifier_term_50_sigma_grad"]
    # a small difference of large numbers: their float32 error over the term's size
    _close("dg/classifier term", full_size.first(plain - both), want, TERM_RTOL, float(want.std()))
