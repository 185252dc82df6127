"""Scores from class logits: Inception Score and mean KL, as the official tools count them.

float64, on the host. N items, K classes.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Literal

import numpy as np
from scipy import special

from foley_jax.evaluation.statistics import distances

Preset = Literal["default", "official"]
MKL_EPS = 1e-6  # SpecVQGAN and audioldm_eval add it to the generated audio's probabilities


@dataclasses.dataclass(frozen=True)
class InceptionScore:
    """Mean and standard deviation (population) over the splits."""

    mean: float
    std: float
    num_splits: int


def inception_score(
    logits_NK: np.ndarray, *, num_splits: int = 10, seed: int | None = 2020
) -> InceptionScore:
    """exp of the mean KL between an item's classes and those of its split.

        exp(mean_i sum_k p_ik (log p_ik - log mean_i p_ik)), for every split on its own

    Split s of S is the items [s N // S, (s + 1) N // S) after one shuffle. The score grows with
    the items per split, up to K: N and the number of splits belong to it.

    Args:
      logits_NK: float [N, K], before the softmax.
      num_splits: 10 in all official tools.
      seed: of the shuffle by NumPy's legacy generator (2020 in all); None keeps the order.
    Raises:
      ValueError: less items than splits (an official split would be empty and the score nan).
    Source: SpecVQGAN evaluation/metrics/isc.py; av-benchmark av_bench/metrics/isc.py;
      audioldm_eval metrics/isc.py (the same rule on the raw logits of PANNs).
    """
    logits = distances.checked("logits", logits_NK)
    count = len(logits)
    if not 1 <= num_splits <= count:
        raise ValueError(f"{num_splits} splits of {count} items, expected 1 <= splits <= items")
    if seed is not None:
        logits = logits[np.random.RandomState(seed).permutation(count)]
    log_p = special.log_softmax(logits, axis=1)
    scores = []
    for split in range(num_splits):
        chunk = log_p[split * count // num_splits : (split + 1) * count // num_splits]
        marginal = special.logsumexp(chunk, axis=0) - np.log(len(chunk))
        scores.append(np.exp(np.mean(np.sum(_weighted(chunk, chunk - marginal), axis=1))))
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)), num_splits)


def mkl_of_pairs(logits_NK: np.ndarray, reference_NK: np.ndarray) -> np.ndarray:
    """SpecVQGAN's KL of every pair, KL(reference || generated), float64 [N].

        sum_k q_k (log q_k - log(p_k + 1e-6)), p and q the softmax of generated and reference

    The added 1e-6 bounds every pair's KL by 13.8; and makes equal logits give a little less than
    0 (-K * 1e-6 at most), as in the source. The mean is MKL, the `KL` of the Diff-Foley paper, and
    audioldm_eval's `kullback_leibler_divergence_softmax`.

    Args:
      logits_NK, reference_NK: float [N, K]; row i of both is the same video (`pair`).
    Raises:
      ValueError: shapes that differ.
    Source: SpecVQGAN evaluation/metrics/kl.py, `calculate_kl`; audioldm_eval metrics/kl.py,
      `kl_softmax` (both in float32).
    """
    p, q = _paired(logits_NK, reference_NK)
    log_q = special.log_softmax(q, axis=1)
    log_p = np.log(special.softmax(p, axis=1) + MKL_EPS)
    return np.sum(_weighted(log_q, log_q - log_p), axis=1)


def softmax_kl_of_pairs(logits_NK: np.ndarray, reference_NK: np.ndarray) -> np.ndarray:
    """av-benchmark's KL of every pair, KL(reference || generated), float64 [N], unbounded.

        sum_k q_k (log q_k - log p_k)

    The mean is `KL-PANNS-softmax`. With several samples a video av-benchmark walks over all but
    returns the KL of the last; give the samples of one set at a time.

    Args, Raises: as `mkl_of_pairs`.
    Source: av-benchmark av_bench/metrics/kl.py, `kl_softmax` (AudioGen's form).
    """
    p, q = _paired(logits_NK, reference_NK)
    log_q = special.log_softmax(q, axis=1)
    return np.sum(_weighted(log_q, log_q - special.log_softmax(p, axis=1)), axis=1)


def sigmoid_kl_of_pairs(
    logits_NK: np.ndarray, reference_NK: np.ndarray, preset: Preset = "official"
) -> np.ndarray:
    """audioldm_eval's KL of every pair with a yes or no for every class, float64 [N].

    'official', with p and q the sigmoids of generated and reference:

        sum_k q_k (log q_k - log(p_k + 1e-6))

    That is no divergence: a class that is heard too much costs nothing, but is a gain of up to
    1/e, so a system that is sure of every class scores below one that is right, and below 0. The
    mean is `kullback_leibler_divergence_sigmoid`; it is the published figure, hence what one gets
    unless asked for otherwise.
    'default' has the other half too: the sum over classes of the KL between two yes-or-no
    variables, >= 0, and 0 only for equal logits.

        sum_k q_k (log q_k - log p_k) + (1 - q_k) (log(1 - q_k) - log(1 - p_k))

    Args, Raises: as `mkl_of_pairs`; ValueError also of an unknown preset.
    Source: audioldm_eval metrics/kl.py, `kl_sigmoid` (in float32).
    """
    p, q = _paired(logits_NK, reference_NK)
    log_q, log_p = special.log_expit(q), special.log_expit(p)
    if preset == "official":
        terms = _weighted(log_q, log_q - np.log(special.expit(p) + MKL_EPS))
    elif preset == "default":
        log_not_q, log_not_p = special.log_expit(-q), special.log_expit(-p)
        terms = _weighted(log_q, log_q - log_p) + _weighted(log_not_q, log_not_q - log_not_p)
    else:
        raise ValueError(f"preset is {preset!r}, expected 'default' or 'official'")
    return np.sum(terms, axis=1)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Generated rows beside the reference row of their video.

    Attributes:
      rows_NK, reference_NK: in the order of the reference, then of the samples.
      videos: name of the video of every row.
      missing: videos of the reference without a sample.
      foreign: generated names that the reference lacks; not among the rows.
    """

    rows_NK: np.ndarray
    reference_NK: np.ndarray
    videos: tuple[str, ...]
    missing: tuple[str, ...]
    foreign: tuple[str, ...]


def pair(
    generated: Mapping[str, Sequence[np.ndarray]], reference: Mapping[str, np.ndarray]
) -> Pairs:
    """Pairs samples with the reference by the name of the video.

    The official scripts drop what has no partner without a count; here it comes back by name.

    Args:
      generated: one or more rows [K] for each video (10 in the papers).
      reference: one row [K] for each video.
    Raises:
      ValueError: no video is in both.
    """
    rows, targets, videos = [], [], []
    for name, target in reference.items():
        for row in generated.get(name, ()):
            rows.append(row)
            targets.append(target)
            videos.append(name)
    if not rows:
        raise ValueError(
            f"none of {len(generated)} generated names is among {len(reference)} of the reference, "
            f"e.g. {sorted(generated)[:2]} and {sorted(reference)[:2]}"
        )
    missing = tuple(name for name in reference if not len(generated.get(name, ())))
    foreign = tuple(name for name in generated if name not in reference)
    return Pairs(np.stack(rows), np.stack(targets), tuple(videos), missing, foreign)


def _weighted(log_weight_NK: np.ndarray, value_NK: np.ndarray) -> np.ndarray:
    """exp(log_weight) * value, and 0 where the weight is 0 whatever the value."""
    weight = np.exp(log_weight_NK)
    return np.where(weight > 0, weight * np.where(weight > 0, value_NK, 0.0), 0.0)


def _paired(logits_NK: np.ndarray, reference_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, of one shape."""
    p, q = np.asarray(logits_NK, np.float64), np.asarray(reference_NK, np.float64)
    if p.ndim != 2 or p.shape != q.shape or not p.size:
        raise ValueError(f"logits {p.shape} and reference {q.shape}, expected equal [N, K]")
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        raise ValueError("logits hold values that are not finite")
    return p, q
