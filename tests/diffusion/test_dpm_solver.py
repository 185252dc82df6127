"""DPM-Solver++(2M) against the official solver and a closed-form ODE."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from foley_jax.diffusion import guidance, schedule
from foley_jax.diffusion.samplers import dpm_multistep

SCHEDULE = schedule.scaled_linear()
LIMIT = 1e-5  # relative; float32 noise of the official run is 3.5e-7


@pytest.mark.parametrize(
    ("case", "num_steps", "scale", "alignment"),
    [
        ("dpm25_cond_scale1", 25, 1.0, 0.0),
        ("dpm25_cfg4.5", 25, 4.5, 0.0),
        ("dpm10_cfg4.5_lower_order_final", 10, 4.5, 0.0),
        ("dpm50_cfg4.5", 50, 4.5, 0.0),
        ("dpm25_cfg4.5_cg50", 25, 4.5, 50.0),
        ("dpm25_cfg1.0_cg50_quirk", 25, 1.0, 0.0),  # the official solver drops the alignment term
    ],
)
def test_equals_official(case, num_steps, scale, alignment):
    denoise = guidance.classifier_free(toys.latent_eps, toys.CONTEXT, toys.NULL, scale)
    if alignment:
        denoise = guidance.double_guidance(denoise, toys.latent_log_prob, SCHEDULE, alignment)
    x_T = jnp.asarray(toys.DIFF_FOLEY["xT"])
    run = jax.jit(lambda x: dpm_multistep.sample(denoise, SCHEDULE, x, num_steps=num_steps))
    assert toys.relative(run(x_T), toys.DIFF_FOLEY[f"{case}/x0"]) < LIMIT
    times = dpm_multistep.model_times(SCHEDULE, num_steps)[:-1]
    np.testing.assert_allclose(
        times, toys.DIFF_FOLEY[f"{case}/model_times"], atol=1e-4
    )  # float32 in (0, 1]


@pytest.mark.parametrize(
    ("run", "spacing", "threshold"),
    [
        ("dpm_solver++_multistep2_20", "time", False),
        ("dpm_solver++_multistep2_20_thr", "log_snr", True),
    ],
)
def test_runs_equal_mm_diffusion(run, spacing, threshold):
    table = schedule.linear()
    seen = []

    def denoise(x, t_B):
        jax.debug.callback(lambda t: seen.append(int(t[0])), t_B, ordered=True)
        return toys.pair_eps(x, t_B)

    settings = {"spacing": spacing, "threshold": threshold, "integer_times": True}
    made = jax.jit(lambda x: dpm_multistep.sample(denoise, table, x, num_steps=20, **settings))(
        toys.pair_start()
    )
    jax.effects_barrier()
    np.testing.assert_array_equal(seen, toys.MM_DIFFUSION[f"{run}/t_model"])
    for name, got in made.items():
        # tests/README.md's limit for samplers on toys
        np.testing.assert_allclose(got, toys.MM_DIFFUSION[f"{run}/{name}"], atol=1e-4)


def test_unconditional_trajectory_equals_official():
    def denoise(x, t_B):
        return toys.latent_eps(x, t_B, toys.NULL)

    golden = toys.DIFF_FOLEY["dpm25_uncond/traj"]  # x at every model call, then the result
    seen = []

    def spy(x, t_B):
        jax.debug.callback(lambda a: seen.append(np.asarray(a)), x, ordered=True)
        return denoise(x, t_B)

    last = dpm_multistep.sample(spy, SCHEDULE, jnp.asarray(toys.DIFF_FOLEY["xT"]), num_steps=25)
    jax.effects_barrier()
    assert len(seen) == 25
    for got, want in zip([*seen, last], golden):
        assert toys.relative(got[..., ::4, ::4], want) < LIMIT


@pytest.mark.slow
def test_lower_order_final_acts_below_15_steps_only():
    def run(num_steps, flag):
        return dpm_multistep.sample(
            lambda x, t: toys.latent_eps(x, t, toys.NULL),
            SCHEDULE,
            jnp.asarray(toys.DIFF_FOLEY["xT"]),
            num_steps=num_steps,
            lower_order_final=flag,
        )

    assert not np.allclose(run(14, True), run(14, False), atol=1e-3)
    np.testing.assert_array_equal(run(15, True), run(15, False))


@pytest.mark.slow
def test_converges_to_the_exact_flow_of_gaussian_data():
    table = schedule.cosine(1000)
    data = toys.Gaussian(table)

    def error(num_steps):
        made = dpm_multistep.sample(data.denoise, table, jnp.ones((1, 1)), num_steps=num_steps)
        return abs(float(made[0, 0] - data.spread(0) / data.spread(999)))

    coarse, middle, fine = error(40), error(80), error(160)
    assert fine < 1e-3
    # second order: half the step, a quarter of the error
    assert 3.5 < coarse / middle < 4.5 and 3.5 < middle / fine < 4.5


@pytest.mark.slow
def test_pytree_leaves_are_independent_and_gradient_is_finite():
    def denoise(x, t_B):
        return jax.tree.map(lambda a: 0.4 * jnp.tanh(a), x)

    tree = {"a": jnp.ones((2, 3)), "b": jnp.full((2, 4, 1), 0.5)}
    both = dpm_multistep.sample(denoise, SCHEDULE, tree, num_steps=4)
    alone = dpm_multistep.sample(denoise, SCHEDULE, tree["b"], num_steps=4)
    np.testing.assert_allclose(both["b"], alone, rtol=1e-6)

    def loss(x):
        return dpm_multistep.sample(denoise, SCHEDULE, x, num_steps=4).sum()

    gradient = jax.grad(loss)(tree["a"])
    assert bool(jnp.isfinite(gradient).all()) and float(jnp.abs(gradient).min()) > 0


def test_one_step_and_no_step():
    got = dpm_multistep.sample(lambda x, t: 0 * x, SCHEDULE, jnp.ones((1, 2)), num_steps=1)
    # no noise predicted: the first-order step only rescales
    alpha, _ = SCHEDULE.alpha_sigma_at(jnp.array([999.0, 0.0]))
    want = alpha[1] / alpha[0]
    np.testing.assert_allclose(got, np.full((1, 2), want), rtol=1e-5)
    with pytest.raises(ValueError, match="num_steps is 0"):
        dpm_multistep.sample(lambda x, t: x, SCHEDULE, jnp.ones((1, 2)), num_steps=0)
    with pytest.raises(ValueError, match="spacing is 'lambda'"):
        dpm_multistep.model_times(SCHEDULE, 5, "lambda")
