"""Frechet distance and polynomial MMD against scipy, scikit-learn and closed forms."""

import numpy as np
import pytest
import scipy.linalg
from sklearn.metrics import pairwise  # comes with librosa

from foley_jax.evaluation.statistics import distances


def _sets(num, other, width, seed=0):
    """Two correlated sets of unlike spread and mean."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(width, width)) / np.sqrt(width)
    x = rng.normal(size=(num, width))
    return x, 1.3 * rng.normal(size=(other, width)) @ mix + 0.2


def _by_scipy(x, y, ddof=1):
    """The official formula with scipy's matrix root."""
    c1, c2 = np.cov(x, rowvar=False, ddof=ddof), np.cov(y, rowvar=False, ddof=ddof)
    root = scipy.linalg.sqrtm(c1 @ c2)
    assert np.isfinite(root).all()
    shift = x.mean(0) - y.mean(0)
    return shift @ shift + np.trace(c1) + np.trace(c2) - 2 * np.trace(root).real


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize(
    "sizes",
    [(300, 250, 40), (41, 60, 40), (40, 40, 40), (12, 200, 40), (200, 12, 40), (9, 15, 40)],
)
def test_frechet_is_scipys_for_many_and_for_few_items(sizes, unbiased):
    """Rank-deficient sets too: there scipy's root of a singular matrix is the less exact one."""
    x, y = _sets(*sizes)
    found = distances.frechet_distance(x, y, unbiased=unbiased)
    assert found == pytest.approx(_by_scipy(x, y, ddof=int(unbiased)), rel=1e-6)


def _symmetric_root(matrix):
    u, s, v = np.linalg.svd(matrix)
    return u @ np.diag(np.where(s < 1e-10, s, np.sqrt(s))) @ v


@pytest.mark.parametrize("sizes", [(300, 250, 40), (41, 60, 40), (12, 200, 40), (9, 15, 40)])
def test_frechet_is_that_of_mm_diffusions_roots(sizes):
    """fvd.py takes two symmetric roots by SVD; here in float64."""
    x, y = _sets(*sizes)
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = _symmetric_root(c1)
    overlap = np.trace(_symmetric_root(root @ c2 @ root))
    want = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(c1) + np.trace(c2) - 2 * overlap
    assert distances.frechet_distance(x, y) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("width", [1, 40])
def test_frechet_of_a_set_scaled_and_moved_is_the_closed_form(width):
    """|(s - 1) m + b|^2 + (s - 1)^2 tr S, also for less items than dimensions."""
    x = 0.5 + _sets(12, 2, width)[0]
    move = np.linspace(-0.3, 0.4, width)
    want = np.sum((0.7 * x.mean(0) + move) ** 2) + 0.7**2 * np.var(x, axis=0, ddof=1).sum()
    assert distances.frechet_distance(x, 1.7 * x + move) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("sizes", [(12, 200, 40), (9, 15, 40), (300, 250, 40)])
def test_frechet_of_published_covariances_is_that_of_the_features(sizes):
    x, y = _sets(*sizes)
    given = [distances.Moments.of_covariance(a.mean(0), np.cov(a, rowvar=False)) for a in (x, y)]
    assert distances.frechet(*given) == pytest.approx(distances.frechet_distance(x, y), rel=1e-9)


def test_frechet_of_commuting_gaussians_is_the_closed_form():
    rng = np.random.default_rng(1)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    a, b = rng.uniform(0, 3, 6), rng.uniform(0, 3, 6)
    a[:2] = 0.0  # singular
    m1, m2 = rng.normal(size=(2, 6))
    gaussians = [
        distances.Moments.of_covariance(m, axes.T @ np.diag(v) @ axes)
        for m, v in ((m1, a), (m2, b))
    ]
    want = np.sum((m1 - m2) ** 2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert distances.frechet(*gaussians) == pytest.approx(want, rel=1e-9)


def test_frechet_of_two_by_two_gaussians_is_the_closed_form():
    """tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)) for M with positive eigenvalues."""
    s1, s2 = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[0.5, -0.3], [-0.3, 3.0]])
    product = s1 @ s2
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    want = 5.0 + np.trace(s1) + np.trace(s2) - 2 * root
    one = distances.Moments.of_covariance(np.zeros(2), s1)
    other = distances.Moments.of_covariance(np.array([1.0, 2.0]), s2)
    assert distances.frechet(one, other) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("size", [300, 12])
def test_frechet_of_identical_sets_is_zero(size):
    x = _sets(size, size, 40)[0] * 1e3
    scale = np.var(x, axis=0).sum()
    assert 0 <= distances.frechet_distance(x, x[::-1]) < 1e-12 * scale
    moments = distances.Moments.of_covariance(x.mean(0), np.cov(x, rowvar=False))
    assert distances.frechet(moments, moments) < 1e-12 * scale


@pytest.mark.parametrize("distance", [distances.frechet_distance, distances.polynomial_mmd])
def test_order_does_not_matter(distance):
    x, y = _sets(50, 70, 20)
    permuted = distance(x[np.random.default_rng(2).permutation(50)], y[::-1])
    assert permuted == pytest.approx(distance(x, y), rel=1e-10)
    assert distance(y, x) == pytest.approx(distance(x, y), rel=1e-10)


def test_duplicated_items_leave_the_biased_distance_alone():
    x, y = _sets(15, 70, 20)
    want = distances.frechet_distance(x, y, unbiased=False)
    doubled = np.concatenate([x, x])
    assert distances.frechet_distance(doubled, y, unbiased=False) == pytest.approx(want, rel=1e-10)
    assert distances.frechet_distance(doubled, y) != pytest.approx(want, rel=1e-4)
    same = np.ones((5, 20))  # five copies of one item: no spread at all
    assert distances.frechet_distance(same, same) == 0.0
    assert distances.frechet_distance(same, y) == pytest.approx(_by_scipy(same, y), rel=1e-6)


def test_covariance_comes_back():
    x = _sets(30, 2, 10)[0]
    moments = distances.Moments.of_features(x)
    np.testing.assert_allclose(moments.covariance_DD, np.cov(x, rowvar=False), atol=1e-12)


@pytest.mark.parametrize("kernel", [{}, {"degree": 2, "gamma": 0.5, "coef0": 0.3}])
@pytest.mark.parametrize("sizes", [(60, 60, 30), (40, 75, 30), (2, 3, 30)])
def test_mmd_is_that_of_sklearns_kernel(monkeypatch, sizes, kernel):
    x, y = _sets(*sizes)
    xx, yy, xy = (pairwise.polynomial_kernel(a, b, **kernel) for a, b in ((x, x), (y, y), (x, y)))
    within = sum(k[~np.eye(len(k), dtype=bool)].mean() for k in (xx, yy))
    monkeypatch.setattr(distances, "BLOCK", 7)
    found = distances.polynomial_mmd(x, y, distances.PolynomialKernel(**kernel))
    assert found == pytest.approx(within - 2 * xy.mean(), rel=1e-9)


def test_mmd_is_zero_on_average_over_draws_of_one_distribution():
    rng = np.random.default_rng(3)
    found = [distances.polynomial_mmd(*rng.normal(size=(2, 30, 5))) for _ in range(300)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(300)
    assert np.std(found) > 0


@pytest.mark.parametrize("size", [300, 12])
def test_mmd_of_identical_sets_is_what_its_diagonal_leaves(size):
    """2 (mean off the diagonal - mean of all): below 0, and gone with 1 / N."""
    x = _sets(size, 2, 40)[0]
    kernel = pairwise.polynomial_kernel(x, x)
    off = kernel[~np.eye(size, dtype=bool)].mean()
    found = distances.polynomial_mmd(x, x[::-1])
    assert found == pytest.approx(2 * (off - kernel.mean()), rel=1e-9)
    assert found == pytest.approx(-2 / size * (np.diag(kernel).mean() - off), rel=1e-9)
    assert found < 0


def test_linear_mmd_without_its_diagonal_is_that_of_the_means():
    """Linear kernel: |m1 - m2|^2 - tr S1 / N - tr S2 / M, with unbiased covariances."""
    x, y = _sets(12, 30, 40)
    kernel = distances.PolynomialKernel(degree=1, gamma=1.0, coef0=0.0)
    spread = [np.var(a, axis=0, ddof=1).sum() / len(a) for a in (x, y)]
    want = np.sum((x.mean(0) - y.mean(0)) ** 2) - sum(spread)
    assert distances.polynomial_mmd(x, y, kernel) == pytest.approx(want, rel=1e-9)


def test_mmd_of_duplicates_is_that_of_weighted_sums():
    """Copies count as other items: k(x, x) enters between them."""
    x, y = np.array([[1.0, 2.0], [1.0, 2.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    # gamma 1/2: k(x, x) = 3.5^3, k(y1, y2) = 1, k(x, y1) = 2^3, k(x, y2) = 1.5^3
    want = 3.5**3 + 1.0 - (2.0**3 + 1.5**3)
    assert distances.polynomial_mmd(x, y) == pytest.approx(want, rel=1e-12)


def test_kid_draws_the_official_subsets():
    x, y = _sets(30, 50, 8)
    found = distances.kernel_distance(x, y, num_subsets=4, subset_size=20, seed=5)
    rng, want = np.random.RandomState(5), []
    for _ in range(4):
        one = x[rng.choice(30, 20, replace=False)]
        other = y[rng.choice(50, 20, replace=False)]
        want.append(distances.polynomial_mmd(one, other))
    assert (found.mean, found.std) == pytest.approx((np.mean(want), np.std(want)), rel=1e-12)
    assert found.subset_size == 20
    assert distances.kernel_distance(x, y, num_subsets=2).subset_size == 30


@pytest.mark.parametrize("distance", [distances.frechet_distance, distances.polynomial_mmd])
@pytest.mark.parametrize(
    ("x", "complaint"),
    [
        (np.zeros((1, 4)), "at least 2 items"),
        (np.zeros(4), "at least 2 items"),
        (np.zeros((3, 5)), "5 and 4 dimensions"),
        (np.array([[0.0] * 4, [np.nan] * 4]), r"1 rows are not finite.*\[1\]"),
    ],
)
def test_unusable_features_are_refused(distance, x, complaint):
    with pytest.raises(ValueError, match=complaint):
        distance(x, np.ones((3, 4)))


def test_matrices_that_are_no_covariance_are_refused():
    with pytest.raises(ValueError, match="eigenvalue -1"):
        distances.Moments.of_covariance(np.zeros(2), np.diag([1.0, -1.0]))
    with pytest.raises(ValueError, match="expected"):
        distances.Moments.of_covariance(np.zeros(3), np.eye(2))
    with pytest.raises(ValueError, match="subsets"):
        distances.kernel_distance(np.zeros((5, 2)), np.zeros((5, 2)), num_subsets=0)
