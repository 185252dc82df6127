"""Bootstrap intervals of figures with known spread."""

import numpy as np
import pytest

from foley_jax.evaluation.statistics import bootstrap


def test_interval_of_a_mean_has_the_width_of_theory():
    values = np.random.default_rng(0).normal(2.0, 3.0, 400)
    found = bootstrap.mean_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.value == values.mean()
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(1)
    runs = [bootstrap.mean_interval(rng.normal(size=40), num_resamples=300) for _ in range(200)]
    covered = np.mean([run.low <= 0.0 <= run.high for run in runs])
    assert 0.88 < covered < 0.99


def test_same_seed_same_interval():
    values = np.arange(20.0)
    assert bootstrap.mean_interval(values) == bootstrap.mean_interval(values)
    assert bootstrap.mean_interval(values) != bootstrap.mean_interval(values, seed=1)


def test_equal_items_have_no_spread():
    found = bootstrap.mean_interval(np.full(10, 0.25))
    assert (found.value, found.low, found.high) == (0.25, 0.25, 0.25)


def test_wider_level_wider_interval():
    values = np.random.default_rng(2).normal(size=50)
    narrow, wide = (bootstrap.mean_interval(values, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("values", "settings", "complaint"),
    [
        (np.zeros(0), {}, "0 items"),
        (np.zeros(5), {"level": 1.0}, "level is 1.0"),
        (np.zeros((5, 2)), {}, "one per item"),
    ],
)
def test_nothing_to_resample_is_refused(values, settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        bootstrap.mean_interval(values, **settings)


def test_two_samples_are_resampled_each_by_itself():
    rng = np.random.default_rng(4)
    one, other = rng.normal(1.0, 2.0, 300), rng.normal(0.0, 1.0, 100)
    found = bootstrap.two_sample_interval(
        lambda i, j: one[i].mean() - other[j].mean(), len(one), len(other)
    )
    half = 1.96 * np.sqrt(one.var() / len(one) + other.var() / len(other))
    assert found.value == one.mean() - other.mean()
    assert found.low == pytest.approx(found.value - half, abs=0.15 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.15 * half)
    with pytest.raises(ValueError, match="3 and 0 items"):
        bootstrap.two_sample_interval(lambda i, j: 0.0, 3, 0)
