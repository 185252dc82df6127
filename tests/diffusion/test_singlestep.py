"""DPM-Solver singlestep against MM-Diffusion's script and closed forms."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from foley_jax.diffusion import log_snr, schedule
from foley_jax.diffusion.samplers import dpm_singlestep

LINEAR = schedule.linear()
SCHEDULES = np.load(toys.GOLDENS / "mm_diffusion" / "schedules.npz")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "num_steps", "order", "preset"),
    [
        ("dpm_solver_script", 20, 3, "default"),
        ("dpm_solver_script", 20, 3, "official"),
        ("dpm_solver_order2_steps10", 10, 2, "default"),
        ("dpm_solver_steps10_audio_bug", 10, 3, "official"),
        ("dpm_solver_order1_audio_bug", 10, 1, "official"),
    ],
)
def test_runs_equal_mm_diffusion(run, num_steps, order, preset):
    seen = [
        t
        for k, numbers in dpm_singlestep.plan(LINEAR, num_steps, order, integer_times=True)
        for t in numbers.times_NK.ravel()
    ]
    np.testing.assert_array_equal(seen, toys.MM_DIFFUSION[f"{run}/t_model"])
    made = jax.jit(
        lambda x: dpm_singlestep.sample(
            toys.pair_eps, LINEAR, x, num_steps=num_steps, order=order, preset=preset
        )
    )(toys.pair_start())
    for name, got in made.items():
        want = toys.MM_DIFFUSION[f"{run}/{name}"]
        np.testing.assert_allclose(got, want, atol=1e-4)  # tests/README.md's limit
        # the wrong formula scales audio by sigma, which the official float32 times put 5e-6 off
        assert toys.relative(got, want) < (2e-5 if "audio_bug" in run else 1e-5)


def test_default_gives_audio_its_spread_where_the_official_formula_does_not():
    spreads = {}
    for preset in ("default", "official"):
        made = dpm_singlestep.sample(
            toys.pair_eps, LINEAR, toys.pair_start(), num_steps=50, order=1, preset=preset
        )
        spreads[preset] = float(made["audio"].std())
    right = dpm_singlestep.sample(toys.pair_eps, LINEAR, toys.pair_start(), num_steps=50, order=3)
    assert abs(spreads["default"] / float(right["audio"].std()) - 1) < 0.1
    assert spreads["official"] < 0.2 * spreads["default"]


def test_one_clip_alone_is_the_clip_in_a_batch():
    x = toys.pair_start()
    one = jax.tree.map(lambda a: a[:1], x)

    def run(x):
        return dpm_singlestep.sample(toys.pair_eps, LINEAR, x)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b[0], atol=1e-5), run(one), run(x))


def test_orders_equal_mm_diffusion():
    meta = json.loads(bytes(SCHEDULES["__meta__"]).decode())["orders"]
    for name, want in meta.items():
        steps, order = name.removeprefix("steps").split("_order")
        assert dpm_singlestep.step_orders(int(steps), int(order)) == want


def test_lambda_and_its_inverse_equal_mm_diffusion():
    clock = log_snr.LogSnr(LINEAR)
    for n in (9, 10, 20):
        time = SCHEDULES[f"dpm/logSNR_{n}/t"].astype(np.float64) * 1000 - 1
        np.testing.assert_allclose(
            clock(time), SCHEDULES[f"dpm/logSNR_{n}/lambda"], atol=1e-4
        )  # near t = 0 the float32 golden has lost digits of 1 - alpha^2
        np.testing.assert_allclose(clock.inverse(clock(time)), np.clip(time, 0, 999), atol=1e-6)


@pytest.mark.slow
def test_error_falls_with_evaluations_as_the_order_says():
    data = toys.Gaussian(LINEAR)

    def error(order, steps):
        x = jnp.ones((1, 1))
        made = dpm_singlestep.sample(
            data.denoise, LINEAR, x, num_steps=steps, order=order, integer_times=False
        )
        return abs(float(made[0, 0]) - data.spread(0) / data.spread(999))

    for order in (1, 2, 3):
        assert error(order, 12) > 2 ** (order - 0.5) * error(order, 24)
    assert error(3, 24) < 0.2 * error(2, 24) < 0.2 * error(1, 24)


def test_errors_say_what_came():
    with pytest.raises(ValueError, match="order is 4"):
        dpm_singlestep.step_orders(20, 4)
    with pytest.raises(ValueError, match="num_evaluations 0"):
        dpm_singlestep.step_orders(0, 3)
    with pytest.raises(ValueError, match="preset is 'wrong'"):
        dpm_singlestep.sample(toys.pair_eps, LINEAR, toys.pair_start(), preset="wrong")
    with pytest.raises(ValueError, match='about x\\["audio"\\]'):
        dpm_singlestep.sample(lambda x, t: x, LINEAR, jnp.ones((1, 2)), preset="official")
