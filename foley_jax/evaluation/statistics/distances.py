"""Distances between two sets of features: Frechet and polynomial MMD. float64, on the host.

N items of one set, M of the other, D width of a feature.
"""

from collections.abc import Callable
import dataclasses

import numpy as np

BLOCK = 2048  # rows of a kernel matrix held at once
LEAST_ITEMS = 2  # of each set: a covariance, and a mean over pairs of different items


@dataclasses.dataclass(frozen=True)
class Moments:
    """A Gaussian fitted to features, or given.

    Attributes:
      mean_D: float64 [D].
      root_RD: float64 [R, D] with root^T root = covariance; R <= min(items, D).
    """

    mean_D: np.ndarray
    root_RD: np.ndarray

    @property
    def covariance_DD(self) -> np.ndarray:
        return self.root_RD.T @ self.root_RD

    @classmethod
    def of_features(cls, features_ND: np.ndarray, *, unbiased: bool = True) -> "Moments":
        """Mean and covariance of a set.

        Args:
          features_ND: float [N, D], finite, N >= 2.
          unbiased: divide by N - 1 (every official script) or by N.
        Raises:
          ValueError: a shape or a value that cannot be used.
        """
        x = checked("features", features_ND)
        mean = x.mean(axis=0)
        centred = (x - mean) / np.sqrt(len(x) - 1 if unbiased else len(x))
        if len(x) > x.shape[1]:  # a triangle with the same Gram matrix
            centred = np.linalg.qr(centred, mode="r")
        return cls(mean, centred)

    @classmethod
    def of_covariance(cls, mean_D: np.ndarray, covariance_DD: np.ndarray) -> "Moments":
        """From a published mean and covariance, float [D] and [D, D] symmetric.

        Raises:
          ValueError: shapes that do not fit, or a covariance with a negative eigenvalue beyond
            the rounding of float32.
        """
        mean, cov = np.asarray(mean_D, np.float64), np.asarray(covariance_DD, np.float64)
        if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
            raise ValueError(f"mean {mean.shape} and covariance {cov.shape}, expected [D], [D, D]")
        if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
            raise ValueError("mean or covariance holds values that are not finite")
        values, vectors = np.linalg.eigh((cov + cov.T) / 2)
        if values[0] < -1e-5 * max(values[-1], np.finfo(np.float64).tiny):
            raise ValueError(
                f"covariance has the eigenvalue {values[0]:.3g} beside {values[-1]:.3g}, expected "
                "none below 0; is it a covariance?"
            )
        # what a missing rank leaves behind is rounding; its root would not be small any more
        kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
        return cls(mean, np.sqrt(values[kept])[:, None] * vectors.T[kept])


def frechet(one: Moments, other: Moments) -> float:
    """Squared Frechet distance of two Gaussians.

        |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))

    The trace of the root is the sum of the singular values of A B^T, where A^T A = S1 and
    B^T B = S2 (S1 S2 has the eigenvalues of A B^T (A B^T)^T). That needs no root of a singular
    matrix, so fewer items than dimensions are no special case: the distance of the rank-deficient
    Gaussians is exact to rounding. The official scripts take `scipy.linalg.sqrtm(S1 S2)`: for
    N < D that agrees to about 1e-7 of the distance where it stays finite; where it does not, they
    add 1e-6 to both diagonals, which is not done here. MM-Diffusion's roots are in float32: a set
    against itself gave -0.003.

    With few items the distance is far from that of the distributions (it grows as D^2 / N): state
    N with it.

    What rounding may leave (a set against itself, in any order of its items) is 0, not the last
    bits of the two traces whose difference it is.

    Returns:
      The distance, >= 0, in squared units of the features.
    Raises:
      ValueError: unequal widths.
    Source: Dowson and Landau 1982; Heusel et al. 2017.
    """
    _check_widths(one.mean_D.size, other.mean_D.size)
    overlap = np.linalg.svd(one.root_RD @ other.root_RD.T, compute_uv=False).sum()
    total = np.sum(one.root_RD**2) + np.sum(other.root_RD**2)
    difference = one.mean_D - other.mean_D
    distance = difference @ difference + total - 2.0 * overlap
    terms = one.root_RD.shape[0] + other.root_RD.shape[0] + one.mean_D.size
    rounding = terms * np.finfo(np.float64).eps * total
    return float(distance) if distance > rounding else 0.0


def frechet_distance(
    features_ND: np.ndarray, reference_MD: np.ndarray, *, unbiased: bool = True
) -> float:
    """`frechet` of the Gaussians fitted to two sets, float [N, D] and [M, D]."""
    return frechet(
        Moments.of_features(features_ND, unbiased=unbiased),
        Moments.of_features(reference_MD, unbiased=unbiased),
    )


@dataclasses.dataclass(frozen=True)
class PolynomialKernel:
    """(gamma x.y + coef0)^degree, with the defaults of sklearn's `polynomial_kernel`.

    Attributes:
      gamma: None is 1 / D.
    """

    degree: int = 3
    gamma: float | None = None
    coef0: float = 1.0

    def __call__(self, x_ND: np.ndarray, y_MD: np.ndarray) -> np.ndarray:
        """Kernel matrix, float64 [N, M]."""
        gamma = 1.0 / x_ND.shape[1] if self.gamma is None else self.gamma
        return (gamma * (x_ND @ y_MD.T) + self.coef0) ** self.degree


def polynomial_mmd(
    features_ND: np.ndarray,
    reference_MD: np.ndarray,
    kernel: PolynomialKernel = PolynomialKernel(),
) -> float:
    """Unbiased squared maximum mean discrepancy over all items: KVD, and KID without subsets.

        mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

    Unbiased means that it is 0 on average, not that it is never negative; a set against itself
    gives less than 0, because the third mean holds the diagonal and the first two do not.

    Args:
      features_ND, reference_MD: float [N, D] and [M, D]; N, M >= 2 may differ.
    Raises:
      ValueError: as `Moments.of_features`, or unequal widths.
    Source: Gretton et al. 2012, eq. 3; MM-Diffusion evaluator.py:21-37 (KVD, no scaling).
    """
    x, y = checked("features", features_ND), checked("reference", reference_MD)
    _check_widths(x.shape[1], y.shape[1])
    cross = _kernel_sum(kernel, x, y)
    return float(_within(kernel, x) + _within(kernel, y) - 2.0 * cross / (len(x) * len(y)))


@dataclasses.dataclass(frozen=True)
class SubsetMmd:
    """Mean and standard deviation (population) of the MMD over random subsets."""

    mean: float
    std: float
    subset_size: int


def kernel_distance(
    features_ND: np.ndarray,
    reference_MD: np.ndarray,
    *,
    num_subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
    kernel: PolynomialKernel = PolynomialKernel(),
) -> SubsetMmd:
    """KID: `polynomial_mmd` over subsets drawn without replacement.

    Draws in the official order from NumPy's legacy generator, so equal features give equal
    subsets. A subset is never larger than the smaller set; the size used comes back.

    Raises:
      ValueError: as `polynomial_mmd`, or num_subsets or subset_size too small.
    Source: SpecVQGAN evaluation/metrics/kid.py; torch-fidelity (same rule).
    """
    x, y = checked("features", features_ND), checked("reference", reference_MD)
    _check_widths(x.shape[1], y.shape[1])
    size = min(subset_size, len(x), len(y))
    if num_subsets < 1 or size < LEAST_ITEMS:
        raise ValueError(f"{num_subsets} subsets of {size} items, expected >= 1 of >= 2 items")
    rng = np.random.RandomState(seed)
    found = []
    for _ in range(num_subsets):
        mine = x[rng.choice(len(x), size, replace=False)]
        found.append(polynomial_mmd(mine, y[rng.choice(len(y), size, replace=False)], kernel))
    return SubsetMmd(float(np.mean(found)), float(np.std(found)), size)


def _within(kernel: PolynomialKernel, x_ND: np.ndarray) -> float:
    """Mean of the kernel over pairs of different items."""
    gamma = 1.0 / x_ND.shape[1] if kernel.gamma is None else kernel.gamma
    own = np.sum((gamma * np.sum(x_ND**2, axis=1) + kernel.coef0) ** kernel.degree)
    return (_kernel_sum(kernel, x_ND, x_ND) - own) / (len(x_ND) * (len(x_ND) - 1))


def _kernel_sum(
    kernel: Callable[[np.ndarray, np.ndarray], np.ndarray], x_ND: np.ndarray, y_MD: np.ndarray
) -> float:
    """Sum of the kernel matrix, `BLOCK` rows at a time."""
    return sum(float(kernel(x_ND[i : i + BLOCK], y_MD).sum()) for i in range(0, len(x_ND), BLOCK))


def checked(name: str, features_ND: np.ndarray) -> np.ndarray:
    """Features as float64.

    Raises:
      ValueError: not [N >= `LEAST_ITEMS`, D >= 1], or not finite (it says in which rows).
    """
    x = np.asarray(features_ND, np.float64)
    if x.ndim != 2 or len(x) < LEAST_ITEMS or not x.shape[1]:
        raise ValueError(
            f"{name} of shape {x.shape}, expected [N, D] with at least {LEAST_ITEMS} items"
        )
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if bad.size:
        raise ValueError(f"{name}: {bad.size} rows are not finite, the first are {bad[:3]}")
    return x


def _check_widths(one: int, other: int) -> None:
    if one != other:
        raise ValueError(f"features of {one} and {other} dimensions; expected one network")
