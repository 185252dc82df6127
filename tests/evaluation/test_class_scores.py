"""Inception Score and mean KL against closed forms and the official formulas in torch."""

import numpy as np
import pytest
from scipy import special, stats
import torch
import torch.nn.functional as F

from foley_jax.evaluation.statistics import class_scores


def _logits(num=50, classes=12, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(2, num, classes))


def _official_inception_score(logits, splits, seed):
    features = torch.from_numpy(logits)
    count = len(features)
    if seed is not None:
        features = features[np.random.RandomState(seed).permutation(count)]
    p, log_p = features.softmax(1), features.log_softmax(1)
    scores = []
    for i in range(splits):
        chunk = slice(i * count // splits, (i + 1) * count // splits)
        kl = p[chunk] * (log_p[chunk] - p[chunk].mean(0, keepdim=True).log())
        scores.append(kl.sum(1).mean().exp().item())
    return np.mean(scores), np.std(scores)


@pytest.mark.parametrize("seed", [None, 2020])
@pytest.mark.parametrize("splits", [1, 7, 10])
def test_inception_score_splits_as_the_official_one(splits, seed):
    logits = _logits(num=53)[0]
    found = class_scores.inception_score(logits, num_splits=splits, seed=seed)
    want = _official_inception_score(logits, splits, seed)
    assert (found.mean, found.std) == pytest.approx(want, rel=1e-10, abs=1e-12)


def test_inception_score_of_sure_and_even_classes_is_their_number():
    logits = np.kron(np.ones((3, 1)), 2000.0 * np.eye(7))  # probabilities that are exactly 0
    assert class_scores.inception_score(logits, num_splits=1).mean == pytest.approx(7.0)
    assert class_scores.inception_score(logits, num_splits=3, seed=None).mean == pytest.approx(7.0)


def test_inception_score_of_unsure_or_equal_items_is_one():
    assert class_scores.inception_score(np.zeros((20, 5))).mean == pytest.approx(1.0)
    equal = np.tile(_logits()[0][:1], (20, 1))
    assert class_scores.inception_score(equal).mean == pytest.approx(1.0)


@pytest.mark.parametrize("scale", [0.1, 2.0, 50.0])
def test_inception_score_is_the_information_of_the_classes(scale):
    """log IS = entropy of the mean minus mean entropy, here by scipy."""
    logits = _logits(num=40, scale=scale)[0]
    p = special.softmax(logits, axis=1)
    want = np.exp(stats.entropy(p.mean(0)) - stats.entropy(p, axis=1).mean())
    found = class_scores.inception_score(logits, num_splits=1)
    assert found.mean == pytest.approx(want, rel=1e-9) and found.std == 0.0


def test_inception_score_of_one_split_knows_no_order_and_no_copies():
    logits = _logits()[0]
    want = class_scores.inception_score(logits, num_splits=1).mean
    assert want > 1.5
    for other in (logits[::-1], np.concatenate([logits, logits]), logits + 3.0):
        found = class_scores.inception_score(other, num_splits=1, seed=None)
        assert found.mean == pytest.approx(want, rel=1e-12)
    in_order = class_scores.inception_score(logits, num_splits=5, seed=None)
    assert in_order != class_scores.inception_score(logits[::-1].copy(), num_splits=5)


def test_more_splits_than_items_are_refused():
    with pytest.raises(ValueError, match="10 splits of 9 items"):
        class_scores.inception_score(np.zeros((9, 5)))


def test_mkl_is_specvqgans():
    p, q = _logits(scale=4.0)
    soft_p, soft_q = (torch.from_numpy(a).softmax(1) for a in (p, q))
    want = F.kl_div((soft_p + 1e-6).log(), soft_q, reduction="sum") / len(p)
    assert class_scores.mkl_of_pairs(p, q).mean() == pytest.approx(want.item(), rel=1e-10)


def test_softmax_kl_is_av_benchmarks():
    p, q = (torch.from_numpy(a) for a in _logits(scale=4.0))
    logs = F.log_softmax(p, dim=1), F.log_softmax(q, dim=1)
    want = F.kl_div(*logs, reduction="sum", log_target=True) / len(p)
    found = class_scores.softmax_kl_of_pairs(p.numpy(), q.numpy())
    assert found.shape == (50,) and found.mean() == pytest.approx(want.item(), rel=1e-10)


@pytest.mark.parametrize("scale", [0.1, 4.0, 20.0])
def test_both_kls_are_scipys_relative_entropy(scale):
    p, q = _logits(scale=scale)
    soft_p, soft_q = special.softmax(p, axis=1), special.softmax(q, axis=1)
    exact = stats.entropy(soft_q, soft_p, axis=1)
    np.testing.assert_allclose(class_scores.softmax_kl_of_pairs(p, q), exact, rtol=1e-9)
    raised = special.rel_entr(soft_q, soft_p + 1e-6).sum(1)
    np.testing.assert_allclose(class_scores.mkl_of_pairs(p, q), raised, rtol=1e-9)


def test_sigmoid_kl_is_audioldm_evals():
    p, q = (torch.from_numpy(a) for a in _logits(scale=4.0))
    logs = (p.sigmoid() + 1e-6).log()
    want = F.kl_div(logs, q.sigmoid(), reduction="sum") / len(p)
    found = class_scores.sigmoid_kl_of_pairs(p.numpy(), q.numpy())
    assert found.shape == (50,) and found.mean() == pytest.approx(want.item(), rel=1e-10)


def test_sigmoid_kl_with_both_halves_is_that_of_yes_or_no_variables():
    p, q = (torch.from_numpy(a) for a in _logits(scale=4.0))
    variables = (torch.distributions.Bernoulli(logits=a) for a in (q, p))
    want = torch.distributions.kl_divergence(*variables).sum(1)
    found = class_scores.sigmoid_kl_of_pairs(p.numpy(), q.numpy(), "default")
    np.testing.assert_allclose(found, want.numpy(), rtol=1e-9)


def test_only_the_official_sigmoid_kl_praises_a_system_that_hears_everything():
    reference, everything = np.array([[0.0, 3.0, -4.0]]), np.full((1, 3), 50.0)
    q = special.expit(reference)
    want = np.sum(q * np.log(q)) - np.sum(q) * np.log1p(1e-6)
    found = class_scores.sigmoid_kl_of_pairs(everything, reference)
    assert found == pytest.approx(want, rel=1e-9) and found < -0.4
    assert class_scores.sigmoid_kl_of_pairs(everything, reference, "default") > 50.0
    right = class_scores.sigmoid_kl_of_pairs(reference, reference)
    assert right == pytest.approx(0.0, abs=3e-6) and right <= 0.0
    assert class_scores.sigmoid_kl_of_pairs(reference, reference, "default") == 0.0


def test_sigmoid_kl_of_sure_logits_is_finite_as_stated():
    sure, other = np.array([[800.0, -800.0]]), np.array([[-800.0, 800.0]])
    assert class_scores.sigmoid_kl_of_pairs(sure, other) == pytest.approx(-np.log(1e-6))
    assert class_scores.sigmoid_kl_of_pairs(sure, other, "default") == pytest.approx(1600.0)
    with pytest.raises(ValueError, match="preset is 'best'"):
        class_scores.sigmoid_kl_of_pairs(sure, other, "best")


def test_kl_of_known_probabilities():
    p, q = np.log([[9 / 25, 12 / 25, 4 / 25]]), np.log([[1 / 3, 1 / 3, 1 / 3]])
    want = np.sum(np.log(np.exp(q) / np.exp(p)) / 3)
    assert class_scores.softmax_kl_of_pairs(p, q) == pytest.approx(want, rel=1e-12)
    assert class_scores.softmax_kl_of_pairs(q, p) == pytest.approx(0.0852996, abs=1e-6)


def test_equal_logits_have_no_kl_and_offsets_do_not_count():
    p = _logits()[0]
    assert np.abs(class_scores.softmax_kl_of_pairs(p + 3.0, p)).max() < 1e-12
    assert np.abs(class_scores.mkl_of_pairs(p + 3.0, p)).max() < 12e-6


def test_mkl_is_bounded_where_the_softmax_form_is_not():
    sure = 1000.0 * np.eye(3)
    other = np.roll(sure, 1, axis=0)
    np.testing.assert_allclose(class_scores.mkl_of_pairs(sure, other), -np.log(1e-6), rtol=1e-9)
    np.testing.assert_allclose(class_scores.softmax_kl_of_pairs(sure, other), 1000.0)


def test_order_and_copies_do_not_matter():
    p, q = _logits()
    order = np.random.default_rng(4).permutation(len(p))
    for kl in (
        class_scores.mkl_of_pairs,
        class_scores.softmax_kl_of_pairs,
        class_scores.sigmoid_kl_of_pairs,
    ):
        np.testing.assert_allclose(kl(p[order], q[order]), kl(p, q)[order])
        classes = np.random.default_rng(5).permutation(p.shape[1])
        np.testing.assert_allclose(kl(p[:, classes], q[:, classes]), kl(p, q))
        copies = kl(np.repeat(p, 2, axis=0), np.repeat(q, 2, axis=0))
        np.testing.assert_allclose(copies, np.repeat(kl(p, q), 2))


def test_pairs_go_by_name_and_tell_what_is_missing():
    generated = {"b": [np.array([1.0]), np.array([2.0])], "x": [np.array([9.0])], "c": []}
    reference = {"a": np.array([10.0]), "b": np.array([20.0]), "c": np.array([30.0])}
    found = class_scores.pair(generated, reference)
    np.testing.assert_array_equal(found.rows_NK, [[1.0], [2.0]])
    np.testing.assert_array_equal(found.reference_NK, [[20.0], [20.0]])
    assert found.videos == ("b", "b")
    assert found.missing == ("a", "c") and found.foreign == ("x",)


def test_nothing_to_pair_is_refused():
    with pytest.raises(ValueError, match="none of 1 generated names"):
        class_scores.pair({"x": [np.zeros(2)]}, {"a": np.zeros(2)})


@pytest.mark.parametrize("shape", [(4, 5), (5, 4), (20,)])
def test_unequal_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="expected equal"):
        class_scores.mkl_of_pairs(np.zeros(shape), np.zeros((5, 5)))
