"""Deep features of one solver step that serve the next ones."""

import functools

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_unet
import window_program

from foley_jax.diff_foley.sampling import feature_cache, settings, solve
from foley_jax.diffusion import schedule, stateful
from foley_jax.runtime import flops

DEEP = {"channel_mult": (1, 2, 2), "attention_downsamples": (2,)}
DEPTHS = (1, 3, 5)  # of 1 to 5: its way down has six entries
TIMES = np.float32([3.0, 500.25])


@functools.cache
def _unet():
    graphdef, params = small_unet.definition(**DEEP)
    return nnx.merge(graphdef, params)


def _inputs():
    x, _, context = small_unet.inputs()
    return x, context


@functools.cache
def _compiled(depth):
    def run(x, context, deep, fresh):
        return _unet().reusing(x, TIMES, context, deep, fresh=fresh, depth=depth)

    return filled.jit(run)


@functools.cache
def _plain():
    x, context = _inputs()
    return filled.jit(lambda x: _unet()(x, TIMES, context))(x)


@pytest.mark.slow
@pytest.mark.parametrize(
    "depth", [pytest.param(depth, marks=() if depth == 5 else pytest.mark.slow) for depth in DEPTHS]
)
def test_kept_features_stand_for_the_deep_entries(depth):
    """Those of the same input change nothing; those of another one do, and are handed on."""
    x, context = _inputs()
    old = jnp.full((2, *_unet().deep_shape(x.shape[1:], depth)), 7.0)
    run = _compiled(depth)
    first, own = run(x, context, old, True)
    np.testing.assert_allclose(first, _plain(), atol=1e-5)
    again, kept = run(x, context, own, False)
    np.testing.assert_allclose(again, _plain(), atol=1e-5)
    np.testing.assert_array_equal(kept, own)
    _, others = run(x[::-1], context, old, True)
    assert np.abs(run(x, context, others, False)[0] - _plain()).max() > 1e-3
    # what is always computed sees the newest input
    assert np.abs(run(x[::-1], context, own, False)[0] - _plain()).max() > 1e-3


def test_a_depth_that_the_network_has_not_is_refused():
    unet, (x, _) = _unet(), _inputs()
    for depth in (0, 6):
        with pytest.raises(ValueError, match=f"cache depth is {depth}, expected 1 to 5"):
            unet.deep_shape(x.shape[1:], depth)
    with pytest.raises(ValueError, match="cache_interval is 0"):
        settings.Settings(cache_interval=0)


def _made(batch, interval):
    cache = feature_cache.FeatureCache(interval)
    run, args, _ = window_program.program(batch, 6, guided=False, cache=cache)
    return np.asarray(filled.jit(lambda *a: run(*a))(*args))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["dpm_solver", "ddim", "plms"])
def test_samplers_carry_a_memory_from_step_to_step(sampler):
    """Returns what is 1 at every third evaluation, and a count of them, as feature caches keep."""
    times = []

    def evaluate(x, t_B, memory):
        count, kept = memory
        kept = jnp.where(count % 3 == 0, t_B[0], kept)
        jax.debug.callback(lambda *seen: times.append(seen), count, t_B[0], kept, ordered=True)
        return 0.1 * x, (count + 1, kept)

    denoise = stateful.Denoiser(evaluate, (jnp.int32(0), jnp.float32(-1)))
    table = schedule.scaled_linear()
    run = jax.jit(lambda x: solve.SAMPLERS[sampler](denoise, table, x, num_steps=7))
    made = run(jnp.ones((1, 2)))
    plain = solve.SAMPLERS[sampler](lambda x, t_B: 0.1 * x, table, jnp.ones((1, 2)), num_steps=7)
    np.testing.assert_allclose(made, plain, rtol=1e-6)
    jax.effects_barrier()
    counts, seen, kept = map(np.array, zip(*times))
    np.testing.assert_array_equal(counts, np.arange(8 if sampler == "plms" else 7))
    np.testing.assert_array_equal(kept, seen[counts // 3 * 3])


@pytest.mark.slow
def test_every_batch_of_windows_has_its_own_features():
    """Two batches or one: the same audio; an interval of one more step than there are: others."""
    exact, one, two, once = (_made(*choice) for choice in ((8, 1), (8, 2), (2, 2), (8, 9)))
    two = two[:, : one.shape[1]]  # what lies behind is padding
    np.testing.assert_allclose(one, two, atol=1e-6 * np.abs(one).max())
    near, far = (np.abs(made - exact).max() for made in (one, once))
    assert 1e-4 < near < far


def test_nothing_but_the_deep_entries_lies_behind_the_branch():
    unet, (x, context) = _unet(), _inputs()
    deep = jnp.zeros((2, *unet.deep_shape(x.shape[1:], 1)))

    def run(fresh):
        return unet.reusing(x, TIMES, context, deep, fresh=fresh, depth=1)

    jaxpr = jax.make_jaxpr(run)(True).jaxpr
    (branches,) = [e.params["branches"] for e in jaxpr.eqns if e.primitive.name == "cond"]
    kept, fresh = (flops.of_jaxpr(branch.jaxpr) for branch in branches)
    whole = flops.count(lambda: unet(x, TIMES, context))
    assert kept == 0 and fresh > 0.7 * whole
    assert flops.of_jaxpr(jaxpr) == whole
