"""Onset matching is one-to-one and optimal; the detector finds what was struck."""

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse import csgraph

from foley_jax.evaluation import onsets


def test_one_detection_matches_one_event():
    assert onsets.count([1.0], [0.95, 1.05], 0.1) == onsets.Counts(1, 1, 2)


def test_matching_is_the_largest_possible():
    """The nearest-first rule would pair 1.0 with 1.04 and lose the other pair."""
    assert onsets.match([1.0, 1.1], [0.92, 1.04], 0.1) == [(0, 0), (1, 1)]


@pytest.mark.parametrize("seed", range(20))
def test_matching_is_as_large_as_graph_theory_allows(seed):
    """Against Hopcroft and Karp's matching; dense, so that the choice matters."""
    rng = np.random.default_rng(seed)
    detected, true = rng.uniform(0, 3, rng.integers(1, 30)), rng.uniform(0, 3, 25)
    pairs = onsets.match(detected, true, 0.1)
    near = sparse.csr_matrix(np.abs(detected[:, None] - true) <= 0.1)
    largest = csgraph.maximum_bipartite_matching(near, perm_type="column")
    assert len(pairs) == np.sum(largest >= 0)
    assert all(abs(detected[i] - true[j]) <= 0.1 for i, j in pairs)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)


def test_order_of_the_input_does_not_matter():
    assert onsets.count([3.0, 1.0], [1.02, 2.98], 0.05).f1 == 1.0


@pytest.mark.parametrize("detected, true", [([], [1.0]), ([1.0], []), ([1.0], [1.2])])
def test_a_miss_scores_zero(detected, true):
    assert onsets.count(detected, true, 0.1).f1 == 0.0


def test_silence_has_no_onsets():
    assert onsets.Detector()(np.zeros((128, 300)), 0.016).size == 0


def test_detector_finds_decaying_strikes_within_one_frame():
    frame_s, true_s = 0.016, np.array([0.5, 1.0, 1.3, 3.0])
    t = np.arange(300) * frame_s
    mel_FT = np.zeros((128, 300))
    for start in true_s:
        level = np.where(t >= start, np.exp(-(t - start) / 0.3), 0.0)
        mel_FT[20:80] = np.maximum(mel_FT[20:80], 0.8 * level)
    found = onsets.Detector()(mel_FT, frame_s)
    assert found.size == 4
    np.testing.assert_allclose(found, true_s, atol=2 * frame_s)


def test_counts_add_up():
    total = onsets.Counts(1, 2, 3) + onsets.Counts(4, 5, 6)
    assert total == onsets.Counts(5, 7, 9)
    assert total.f1 == pytest.approx(10 / 16)
