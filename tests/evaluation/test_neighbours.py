"""Nearest neighbours against scikit-learn, and figures whose healthy values are known."""

import numpy as np
import pytest
from scipy.spatial import distance as scipy_distance
from sklearn import metrics as sklearn_metrics
from sklearn import neighbors as sklearn_neighbors
from sklearn import preprocessing

from foley_jax.evaluation.memorisation import neighbours
from foley_jax.evaluation.statistics import bootstrap, remarks


def _sets(*counts, width=5, seed=0):
    rng = np.random.default_rng(seed)
    spread = np.linspace(1.0, 3.0, width)  # all above the floor of the scale
    return [7.0 + spread * rng.normal(size=(count, width)) for count in counts]


@pytest.mark.parametrize("metric", neighbours.METRICS)
def test_neighbours_are_those_of_scikit_learn(metric):
    training, queries = _sets(700, 300)
    scaler = preprocessing.StandardScaler().fit(training)
    known = sklearn_neighbors.NearestNeighbors(n_neighbors=2, metric=metric, algorithm="brute").fit(
        scaler.transform(training)
    )
    distances, indices = known.kneighbors(scaler.transform(queries))
    own, _ = known.kneighbors(scaler.transform(training))
    search = neighbours.Training(training, metric=metric)
    found = search.nearest(queries)
    np.testing.assert_array_equal(found.index_N, indices[:, 0])
    np.testing.assert_array_equal(found.second_index_N, indices[:, 1])
    np.testing.assert_allclose(found.distance_N, distances[:, 0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.second_N, distances[:, 1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.own_N, own[indices[:, 0], 1], rtol=1e-9, atol=1e-12)
    alone = search.leave_one_out()
    np.testing.assert_allclose(alone.distance_N, own[:, 1], rtol=1e-9, atol=1e-12)
    assert np.isnan(alone.own_N).all()


def test_near_copies_far_from_the_origin_keep_their_digits():
    """|x|^2 + |y|^2 - 2 x.y alone would be all rounding here."""
    training = 1e6 + _sets(50, width=400)[0]
    search = neighbours.Training(training)
    found = search.nearest(training + 1e-7 * training[:, ::-1] / training)
    np.testing.assert_array_equal(found.index_N, np.arange(50))
    moved = search.standard(training + 1e-7 * training[:, ::-1] / training)
    known = np.linalg.norm(moved - search.standard(training), axis=1)
    assert known.max() < 1e-4
    np.testing.assert_allclose(found.distance_N, known, rtol=1e-12)


def test_groups_hide_an_item_from_its_own_kind():
    training, _ = _sets(60, 1)
    groups = np.arange(60) // 3
    found = neighbours.Training(training, groups).leave_one_out()
    z = (training - training.mean(0)) / training.std(0)
    all_ = scipy_distance.cdist(z, z)
    all_[groups[:, None] == groups] = np.inf
    np.testing.assert_array_equal(found.index_N, all_.argmin(axis=1))
    np.testing.assert_allclose(found.distance_N, all_.min(axis=1), rtol=1e-12)
    all_[groups[found.index_N][:, None] == groups] = np.inf
    np.testing.assert_allclose(found.second_N, all_.min(axis=1), rtol=1e-12)


def test_the_scale_is_the_spread_of_training_but_not_below_its_floor():
    training = _sets(100, width=4)[0]
    training[:, 1] = 3.0  # never varies: divided by 0 it would drown the others
    standard = neighbours.Standard.of(training)
    spread = training.std(axis=0)
    floor = 0.1 * np.sqrt((spread**2).mean())
    np.testing.assert_allclose(standard.scale_D, [spread[0], floor, spread[2], spread[3]])
    np.testing.assert_allclose(standard(training).mean(axis=0), 0.0, atol=1e-12)


def test_one_unit_has_one_scale():
    training = _sets(100, width=4)[0]
    scale = neighbours.Standard.of(training, "one").scale_D
    np.testing.assert_allclose(scale, np.sqrt(training.var(axis=0).mean()))


def test_own_scales_make_few_training_items_look_dense_and_one_scale_does_not():
    rng = np.random.default_rng(0)
    training, held_out = (rng.standard_t(3, size=(count, 400)) for count in (20, 200))
    auc = {}
    for units in neighbours.UNITS:
        search = neighbours.Training(training, units=units)
        beside = search.nearest(held_out)
        auc[units] = neighbours.figures(search.leave_one_out(), beside)
    assert auc["one"]["auc_low"] < 0.5 < auc["one"]["auc_high"]
    assert auc["each"]["auc"] > 0.7


def test_auc_is_that_of_scikit_learn_with_ties():
    rng = np.random.default_rng(3)
    one, other = rng.integers(0, 12, 80) / 2, rng.integers(0, 14, 50) / 2
    known = sklearn_metrics.roc_auc_score(
        np.repeat([1, 0], [len(one), len(other)]), -np.concatenate([one, other])
    )
    assert neighbours.auc(one, other) == pytest.approx(known, abs=1e-12)
    assert neighbours.auc(np.array([1.0]), np.array([2.0, 3.0])) == 1.0
    assert neighbours.auc(np.array([2.0]), np.array([2.0, 2.0])) == 0.5


def test_copies_are_found_and_fresh_draws_are_not():
    training, held_out, fresh = _sets(800, 400, 400, width=20)
    search = neighbours.Training(training)
    beside = search.nearest(held_out)
    noise = np.random.default_rng(5).normal(size=(400, 20))
    copies = search.nearest(training[:400] + 0.01 * training.std(axis=0) * noise)
    np.testing.assert_array_equal(copies.index_N, np.arange(400))
    found = neighbours.figures(copies, beside)
    assert found["nearer"] == 1.0 and found["auc"] == 1.0 and found["auc_low"] == 1.0
    assert found["authentic"] == 0.0 and found["ratio"] < 0.05
    healthy = neighbours.figures(search.nearest(fresh), beside)
    assert healthy["auc_low"] < 0.5 < healthy["auc_high"] < healthy["auc_low"] + 0.1
    assert healthy["nearer"] == pytest.approx(0.05, abs=0.03)
    assert neighbours.figures(beside, beside)["auc"] == 0.5


def test_half_the_items_copied_shows_in_the_share():
    training, held_out, fresh = _sets(500, 400, 200, width=20)
    search = neighbours.Training(training)
    mixed = search.nearest(np.concatenate([training[:200], fresh]))
    found = neighbours.figures(mixed, search.nearest(held_out))
    assert found["nearer"] == pytest.approx(0.5 + 0.5 * 0.05, abs=0.03)
    assert found["auc"] == pytest.approx(0.75, abs=0.03)


@pytest.mark.slow
def test_the_interval_covers_one_half_as_often_as_it_says():
    covered = []
    for seed in range(150):
        training, held_out, fresh = _sets(100, 60, 60, seed=seed, width=3)
        search = neighbours.Training(training)
        one, other = (search.nearest(x).distance_N for x in (fresh, held_out))
        found = bootstrap.two_sample_interval(
            lambda i, j, one=one, other=other: neighbours.auc(one[i], other[j]),
            60,
            60,
            num_resamples=200,
        )
        covered.append(found.low <= 0.5 <= found.high)
    assert 0.9 < np.mean(covered) < 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("width", "healthy"), [(1, 1 / 3), (2, 1 - 0.6215)])
def test_authenticity_of_fresh_draws_is_that_of_theory(width, healthy):
    """1 - the probability that nearest neighbours are mutual (Clark & Evans 1955)."""
    rng = np.random.default_rng(0)
    training, fresh = rng.uniform(size=(4000, width)), rng.uniform(size=(4000, width))
    found = neighbours.figures(neighbours.Training(training).nearest(fresh))
    assert found["authentic"] == pytest.approx(healthy, abs=0.03)


def test_training_against_itself_is_all_copies():
    training = _sets(50)[0]
    found = neighbours.Training(training).nearest(training)
    np.testing.assert_array_equal(found.index_N, np.arange(50))
    assert (found.distance_N == 0).all() and (found.ratio_N == 0).all()
    assert neighbours.figures(found)["authentic"] == 0.0


def test_duplicates_in_training():
    training = _sets(20)[0]
    training[7] = training[3]
    search = neighbours.Training(training)
    found = search.nearest(training[[3, 7, 5]])
    assert found.index_N.tolist() == [3, 3, 5]  # the first of equal ones
    assert found.second_N[:2].tolist() == [0.0, 0.0] and found.own_N[:2].tolist() == [0.0, 0.0]
    assert (found.ratio_N == 0).all()  # a copy of a doubled item is a copy
    assert search.nearest(training[[3]] + 0.1).ratio_N.tolist() == [np.inf]
    loo = search.leave_one_out()
    assert (loo.index_N[3], loo.index_N[7], loo.distance_N[3]) == (7, 3, 0.0)


def test_one_item_in_each_set():
    search = neighbours.Training(np.array([[1.0, 2.0]]))
    found = search.nearest(np.array([[4.0, 6.0]]))
    assert (found.index_N[0], found.distance_N[0]) == (0, 5.0)
    assert np.isnan(found.second_N[0]) and np.isnan(found.ratio_N[0])
    figures = neighbours.figures(found, found)
    assert figures["auc"] == 0.5 and remarks.is_absent(figures["auc_low"])
    assert remarks.remark_of(figures["auc_high"]) == "1 clip; a 95 % interval needs 4 of each"
    assert "authentic" not in figures and "ratio" not in figures and figures["median"] == 5.0
    alone = search.leave_one_out()
    assert alone.index_N.tolist() == [-1] and np.isnan(alone.distance_N[0])


def test_cosine_of_an_item_without_direction_is_one():
    training = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    found = neighbours.Training(training, metric="cosine").nearest(np.array([[0.0, 0.0]]))
    assert found.distance_N[0] == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize(
    ("training", "queries", "settings", "complaint"),
    [
        (np.zeros((0, 3)), np.zeros((1, 3)), {}, "training has shape"),
        (np.zeros((2, 3)), np.zeros((1, 2)), {}, "2 wide, those of the training set 3"),
        (np.zeros((2, 3)), np.full((1, 3), np.nan), {}, r"not finite in items \[0\]"),
        (np.zeros((2, 3)), np.zeros((1, 3)), {"metric": "l1"}, "metric is 'l1'"),
        (np.zeros((2, 3)), np.zeros((1, 3)), {"units": "all"}, "units are 'all'"),
        (np.zeros((2, 3)), np.zeros((1, 3)), {"groups_M": [0]}, "groups of shape"),
    ],
)
def test_what_cannot_be_compared_is_refused(training, queries, settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        neighbours.Training(training, **settings).nearest(queries)


def test_no_items_give_no_figures():
    search = neighbours.Training(np.eye(3))
    some = search.nearest(np.eye(3))
    none = neighbours.Nearest(*[some.distance_N[:0]] * 5)
    with pytest.raises(ValueError, match="no items"):
        neighbours.figures(some, none)
