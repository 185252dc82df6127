"""Averages of any length from two, against the official ones."""

from pathlib import Path

from goldens import fill
import numpy as np
import pytest

from foley_jax.training import power_ema

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "mmaudio" / "ema.npz")
LIMIT = 1e-6  # float32 averages there


def distance(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def averages(sigma):
    """Averages after updates 1 to 40, of seeded weights."""
    weights = [fill.inp(f"mmaudio_ema_{i}", (2, 3), "public/") for i in range(41)]
    gamma, made = power_ema.gamma_of(sigma), {}
    average = weights[1]  # before its first update it is the weights themselves
    for i in range(1, 41):
        average = power_ema.updated(average, weights[i], power_ema.taken(i, gamma))
        made[i] = average
    return made


def test_exponents_and_shares_are_the_official_ones():
    gammas = [power_ema.gamma_of(sigma) for sigma in (0.05, 0.1, 0.08, 0.15)]
    np.testing.assert_allclose(gammas, GOLDEN["gammas"], rtol=1e-6)
    found = [[power_ema.taken(i, gamma) for gamma in gammas[:2]] for i in range(2, 41)]
    np.testing.assert_allclose(found, 1 - GOLDEN["beta"][1:], rtol=1e-6)
    late = power_ema.taken(300_000, 16.97)  # in float32, too
    np.testing.assert_allclose(late, 17.97 / 300_001.5, rtol=1e-4)


@pytest.mark.parametrize("sigma", power_ema.SIGMAS)
def test_averages_are_the_official_ones(sigma):
    made = averages(sigma)
    for update in (1, 2, 3, 10, 25, 40):
        assert distance(made[update], GOLDEN[f"ema/{sigma:g}/update{update}"]) <= LIMIT, update


@pytest.mark.parametrize("sigma", [0.05, 0.08, 0.15])
def test_other_lengths_are_the_official_ones(sigma):
    times = [10, 20, 30, 40]
    gammas = [power_ema.gamma_of(s) for s in power_ema.SIGMAS]
    snapshots = [averages(s)[t] for s in power_ema.SIGMAS for t in times]
    weights = power_ema.synthesis_weights(
        2 * times, np.repeat(gammas, 4), 40, power_ema.gamma_of(sigma)
    )
    np.testing.assert_allclose(weights, GOLDEN[f"weights/{sigma:g}"], atol=1e-6)
    made = power_ema.synthesised([{"a": s} for s in snapshots], weights)
    assert distance(made["a"], GOLDEN[f"synthesised/{sigma:g}"]) <= LIMIT


def test_lengths_that_no_profile_has_are_refused():
    with pytest.raises(ValueError, match=r"sigma_rel is 0\.3"):
        power_ema.gamma_of(0.3)
