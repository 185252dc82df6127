"""Keys and values of a sample's condition: made once, not at every solver step."""

import filled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import window_program

from foley_jax.diff_foley.sampling import (
    conditions,
)
from foley_jax.diffusion import tape
from foley_jax.runtime import flops

BATCHES = [
    pytest.param(8, id="one_batch", marks=pytest.mark.slow),
    pytest.param(2, id="several_batches"),
]


def _per_step(batch, **options):
    """FLOPs of one more solver step; a loop over batches counts once."""
    counts = []
    for steps in (2, 3):
        run, args, _ = window_program.program(batch, steps, **options)
        counts.append(flops.count(run, *args))
    return counts[1] - counts[0]


def _of_denoiser(batch):
    """FLOPs of the U-Net whose keys and values are there, for both halves of guidance.

    And of that which makes them, and the windows' context, from features.
    """
    model = window_program.networks()[0].module()
    _, _, program = window_program.program(batch, 2)
    batch = program.batch
    z = jnp.zeros((2 * batch, *program.latent_shape))
    context = jnp.zeros((2 * batch, 4, 8))
    times = jnp.zeros((2 * batch, 4))
    keys_values = jax.eval_shape(model.unet.keys_values, context)

    def run(context):
        return model.denoise(z, jnp.zeros(2 * batch), context, context_s_BL=times)

    anew = flops.count(run, context) + flops.count(model.conditioner, context[:batch])
    return flops.count(run, keys_values), anew


@pytest.mark.slow
@pytest.mark.parametrize("batch", BATCHES)
def test_a_step_projects_no_context(monkeypatch, batch):
    kept, anew = _of_denoiser(batch)
    assert kept < anew
    assert _per_step(batch, guided=False) == kept
    for bound in ("KEPT_BYTES", "ROWS_BYTES"):  # short videos are within both
        with monkeypatch.context() as patch:
            patch.setattr(conditions, bound, 0)
            assert _per_step(batch, guided=False) == anew


@pytest.mark.slow
def test_nor_does_a_step_with_the_classifier(monkeypatch):
    kept, anew = _of_denoiser(8)
    with_classifier = _per_step(8)
    monkeypatch.setattr(conditions, "KEPT_BYTES", 0)
    assert _per_step(8) > with_classifier + anew - kept


@pytest.mark.slow
@pytest.mark.parametrize("batch", BATCHES)
def test_audio_are_the_same_as_with_a_projection_at_every_step(monkeypatch, batch):
    run, args, _ = window_program.program(batch, 2, guided=False)
    made = []
    for kept in (conditions.KEPT_BYTES, 0):
        monkeypatch.setattr(conditions, "KEPT_BYTES", kept)
        made.append(np.asarray(filled.jit(lambda *a: run(*a))(*args)))
    assert np.abs(made[0]).max() > 0.1
    np.testing.assert_allclose(*made, atol=1e-5)


@pytest.mark.slow
def test_all_steps_are_one_program_that_never_asks_the_host():
    run, args, _ = window_program.program(8, 3)
    text = str(jax.make_jaxpr(run)(*args))
    assert text.count("scan[") >= 1 and "length=3" in text
    assert "callback" not in text and "while[" not in text


@pytest.mark.slow
def test_one_null_condition_serves_all_windows():
    model = window_program.networks()[0].module()
    features_NLD = np.ones((6, 4, 8), np.float32)
    for zero_null in (False, True):
        contexts, null = conditions.of_model(model, features_NLD, 2, zero_null=zero_null)
        row = model.conditioner(jnp.zeros((1, 4, 8)))
        want = model.unet.keys_values(jnp.zeros_like(row) if zero_null else row)
        for got, one in zip(jax.tree.leaves(null), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(got, np.repeat(one, 2, axis=0), atol=1e-6)
        assert all(leaf.shape[:2] == (3, 2) for leaf in jax.tree.leaves(contexts))


@pytest.mark.slow
@pytest.mark.parametrize("official", [False, True])
def test_the_classifier_judges_by_keys_and_values(official):
    """Takes its window's features; preset "official" all features of the video, in every batch."""
    rng = np.random.default_rng(1)
    features_NLD, raw_RD = (rng.standard_normal(n).astype(np.float32) for n in ((4, 4, 8), (9, 8)))
    z, t = jnp.ones((2, *window_program.program(2, 2)[2].latent_shape)), jnp.zeros(2)

    @filled.jit
    def judged(state, features_NLD, raw_RD, number):
        classifier = window_program.networks()[1].module(state)
        made = conditions.of_classifier(classifier, features_NLD, 2, raw_RD if official else None)
        raw_BRD = jnp.stack([raw_RD, raw_RD])
        own_BLD = jax.lax.dynamic_slice_in_dim(features_NLD, 2 * number, 2)
        want = classifier.log_prob(z, t, raw_BRD if official else own_BLD, embed=not official)
        return classifier.log_prob(z, t, conditions.at(made, number)), want

    for number in (0, 1):
        got, want = judged(
            window_program.networks()[1].state, features_NLD, raw_RD, jnp.int32(number)
        )
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("most", [1, 5, 8, 64])
def test_little_is_computed_in_vain_by_few_programs(most):
    sizes = [tape.batch_size(count, most) for count in range(1, 1000)]
    computed = [-(-count // size) * size for count, size in enumerate(sizes, 1)]
    wasted = [total / count for count, total in enumerate(computed, 1)]
    assert min(sizes) >= 1 and max(sizes) <= most and min(wasted) >= 1
    # one more than a power of two is the worst; and it is never a batch more than needed
    assert max(wasted) < 1.5 or most == 5
    assert all(total - count < most for count, total in enumerate(computed, 1))
    assert len(set(sizes)) <= 2 * most.bit_length()
