"""The U-Net in small: shapes, conditioning, precision, door checks."""

import functools

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_unet

TIMES_S = np.broadcast_to(np.arange(8, dtype=np.float32) * 0.25, (2, 8))


@functools.cache
def _compiled(**fields):
    graphdef, params = small_unet.definition(**fields)
    call = filled.jit(lambda p, x, t, c, s: nnx.merge(graphdef, p)(x, t, c, context_s_BL=s))
    return lambda x, t, c, s=TIMES_S: np.asarray(call(params, x, t, c, s))


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"locality_bias": True, "attention_downsamples": (1,)}])
def test_prediction_depends_on_step_and_context(fields):
    run, (x, t, context) = _compiled(**fields), small_unet.inputs()
    out = run(x, t, context)
    assert out.shape == x.shape and out.dtype == np.float32
    assert np.abs(out - run(x, t + 100, context)).max() > 1e-3
    assert np.abs(out - run(x, t, -context)).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [{"depth": 2}, {"locality_bias": True, "attention_downsamples": (1,), "remat": True}]
)
def test_keys_and_values_stand_for_their_context(fields):
    graphdef, params = small_unet.definition(**fields)
    x, t, context = small_unet.inputs()

    @filled.jit
    def both(params, x, t, context):
        model = nnx.merge(graphdef, params)
        made = model.keys_values(context)
        return made, [model(x, t, given, context_s_BL=TIMES_S) for given in (context, made)]

    made, (want, got) = both(params, x, t, context)
    assert len(jax.tree.leaves(made)) > 0
    np.testing.assert_allclose(got, want, atol=1e-6)
    with pytest.raises(ValueError, match="context features have width 5"):
        nnx.merge(graphdef, params).keys_values(context[..., :5])


def test_examples_do_not_see_each_other():
    run, (x, t, context) = _compiled(), small_unet.inputs()
    out = run(x, t, context)
    other = run(np.stack([x[1], x[1]]), t[[1, 1]], context[[1, 1]])
    np.testing.assert_allclose(out[1], other[1], atol=2e-6)  # float32 re-ordering
    assert np.abs(out[0] - other[0]).max() > 1e-2


def test_times_of_rows_matter_only_with_locality():
    inputs = small_unet.inputs()
    for fields in ({}, {"locality_bias": True, "attention_downsamples": (1,)}):
        run = _compiled(**fields)
        moved = np.abs(run(*inputs, TIMES_S + 0.5) - run(*inputs)).max()
        assert (moved > 1e-4) == bool(fields)


@pytest.mark.slow
def test_remat_changes_nothing():
    x, t, context = small_unet.inputs()

    def gradient(remat):
        graphdef, params = small_unet.definition(channel_mult=(1,), remat=remat)

        def loss(params):
            return jnp.square(nnx.merge(graphdef, params)(x, t, context)).sum()

        return filled.jit(jax.grad(loss))(params)

    plain, saved = jax.tree.leaves(gradient(False)), jax.tree.leaves(gradient(True))
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in plain)
    for a, b in zip(plain, saved, strict=True):
        # the same sums, possibly in another order
        np.testing.assert_allclose(a, b, atol=2e-5 * max(1.0, float(np.abs(a).max())))


@pytest.mark.slow
def test_bfloat16_follows_float32():
    inputs = small_unet.inputs()
    exact, rough = _compiled()(*inputs), _compiled(dtype="bfloat16")(*inputs)
    assert rough.dtype == np.float32
    # bfloat16 keeps 8 bits: a few steps of 2^-8 over the depth of the network
    np.testing.assert_allclose(rough, exact, atol=0.06 * float(np.abs(exact).max()))


def test_sizes_that_do_not_fit_are_refused():
    graphdef, params = small_unet.definition()
    model, (x, t, context) = nnx.merge(graphdef, params), small_unet.inputs()
    with pytest.raises(ValueError, match="latent is 3x8x4"):
        model(x[:, :3], t, context)
    with pytest.raises(ValueError, match="width 5, the UNet expects 6"):
        model(x, t, context[..., :5])
