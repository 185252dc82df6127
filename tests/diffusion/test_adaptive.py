"""Adaptive DPM-Solver++ against MM-Diffusion's script and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from foley_jax.diffusion import schedule
from foley_jax.diffusion.samplers import dpm_adaptive

LINEAR = schedule.linear()


def test_script_run_equals_mm_diffusion():
    seen = []

    def denoise(x, t_B):
        jax.debug.callback(lambda t: seen.append(int(t[0])), t_B, ordered=True)
        return toys.pair_eps(x, t_B)

    made, evaluations = jax.jit(lambda x: dpm_adaptive.sample(denoise, LINEAR, x))(
        toys.pair_start()
    )
    jax.effects_barrier()
    times = toys.MM_DIFFUSION["dpm_solver++_script/t_model"]
    assert int(evaluations) == len(times)
    assert np.abs(np.array(seen) - times).max() <= 1  # the steps' lengths follow the data
    for name, got in made.items():
        # steps chosen by the data: tests/README.md's limit
        np.testing.assert_allclose(got, toys.MM_DIFFUSION[f"dpm_solver++_script/{name}"], atol=1e-3)


@pytest.mark.slow
def test_time_of_inverts_lambda():
    times = jnp.linspace(0.0, 999.0, 57)
    np.testing.assert_allclose(
        dpm_adaptive.time_of(LINEAR, LINEAR.lambda_at(times)), times, atol=0.05
    )  # float32 at the flat end of lambda


def test_tighter_tolerance_takes_more_evaluations_and_is_closer():
    data = toys.Gaussian(LINEAR)
    found = []
    for relative in (0.5, 0.005):
        limits = dpm_adaptive.Tolerances(absolute=relative / 10, relative=relative)
        x_0, count = dpm_adaptive.sample(
            data.denoise,
            LINEAR,
            jnp.ones((1, 1)),
            tolerances=limits,
            threshold=False,
            integer_times=False,
        )
        found.append((abs(float(x_0[0, 0]) - data.spread(0) / data.spread(999)), int(count)))
    assert found[1][1] > found[0][1]
    assert found[1][0] < 0.5 * found[0][0]
    assert found[1][0] < 0.01


def test_evaluations_are_bounded():
    _, count = dpm_adaptive.sample(
        lambda x, t: 100.0 * jnp.sin(1e4 * x), LINEAR, jnp.ones((1, 3)), max_evaluations=20
    )
    assert int(count) <= 20
