"""Pooled F1, wrong pairings and the bootstrap, on made-up times."""

import numpy as np
import pytest

from foley_jax.evaluation.statistics import scores


def test_figures_of_made_up_times_are_exact():
    true = [[0.2, 0.8], [0.5], [], [1.0]]
    detected = [[0.25, 0.92], [0.5, 1.2], [], [1.14]]
    found = scores.figures(detected, true)
    # at 100 ms 0.25 and 0.5 match; at 150 ms 0.92 and 1.14 do too
    assert (found["clips"], found["events"], found["heard"]) == (4, 4, 5)
    assert found["precision"] == 2 / 5 and found["recall"] == 2 / 4
    assert found["f1@100ms"] == pytest.approx(4 / 9)
    assert found["f1@150ms"] == pytest.approx(8 / 9)
    # 50 ms takes in 0.25 and 0.5, 100 ms no more, 150 ms and wider all that can match
    assert found["f1@50-500ms"] == pytest.approx((4 + 4 + 8 * 8) / 9 / 10)


def test_mean_over_tolerances_falls_with_the_distance():
    true = [[1.0, 3.0, 5.0], [2.0, 4.0]]
    found = [
        scores.figures([[t + late_s for t in times] for times in true], true)
        for late_s in (0.0, 0.09, 0.19, 0.39)
    ]
    # 90 ms late one of ten tolerances misses, then three, then seven
    assert [f["f1@50-500ms"] for f in found] == pytest.approx([1.0, 0.9, 0.7, 0.3])
    assert [f["f1@100ms"] for f in found] == [1.0, 1.0, 0.0, 0.0]
    assert found[0]["shuffled_f1@50-500ms"] == 0.0


def test_shuffled_score_averages_every_rotation_of_three_clips():
    true = [[0.2], [0.8], [0.8]]
    detected = [[0.2], [0.8], [0.8]]
    # both rotations put 0.8 against 0.8 once of three times
    assert scores.figures(detected, true)["shuffled_f1@100ms"] == pytest.approx(1 / 3)


def test_shuffled_score_never_pairs_a_clip_with_itself():
    times = [[0.5 * i] for i in range(40)]
    found = scores.figures(times, times)
    assert found["f1@100ms"] == 1.0 and found["shuffled_f1@100ms"] == 0.0
    alone = scores.figures(times[:1], times[:1])
    assert np.isnan(alone["shuffled_f1@100ms"]) and np.isnan(alone["shuffled_f1@50-500ms"])


def test_clips_of_unequal_number_are_refused():
    with pytest.raises(ValueError, match="zip"):
        scores.figures([[0.1]], [[0.1], [0.2]])


def test_bootstrap_interval_contains_the_score_and_has_width():
    rng = np.random.default_rng(0)
    true = [list(range(10)) for _ in range(40)]
    # so many of ten are met, the others fall between true times
    detected = [[t + 0.5 * (t >= k) for t in range(10)] for k in rng.integers(4, 10, 40)]
    found = scores.figures(detected, true)
    assert found["f1_low"] < found["f1@100ms"] < found["f1_high"]
    assert 0.01 < found["f1_high"] - found["f1_low"] < 0.2
