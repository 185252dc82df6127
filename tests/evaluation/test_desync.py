"""DeSync reads the class of the largest logit as seconds."""

import numpy as np
import pytest

from foley_jax.evaluation.statistics import desync


def _sure_of(classes):
    return 5.0 * np.eye(21)[list(classes)]


def test_offsets_are_absolute_and_averaged_over_both_ends():
    found = desync.desync_from_logits(_sure_of([10, 0, 13]), _sure_of([10, 20, 9]))
    np.testing.assert_allclose(found, [0.0, 2.0, 0.4], atol=1e-7)
    assert found.dtype == np.float64


def test_only_the_largest_logit_counts():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 50, 21))
    found = desync.desync_from_logits(*logits)
    want = np.mean([abs(-2 + 0.2 * k) for k in logits.argmax(-1).reshape(-1)])
    assert found.mean() == pytest.approx(want, abs=1e-6)
    np.testing.assert_allclose(desync.desync_from_logits(*(3 * logits + 7)), found)


@pytest.mark.parametrize("shapes", [((2, 20), (2, 20)), ((2, 21), (3, 21)), ((0, 21), (0, 21))])
def test_other_grids_are_refused(shapes):
    with pytest.raises(ValueError, match=r"expected equal \[N, 21\]"):
        desync.desync_from_logits(*map(np.zeros, shapes))
