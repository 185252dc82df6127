"""F1 of detected against true times over a set of clips, its spread, and what chance gives."""

from collections.abc import Sequence

import numpy as np

from foley_jax.evaluation import onsets
from foley_jax.evaluation.statistics import bootstrap

TOLERANCES_S = (0.1, 0.15)
# how late sounds are, not only whether they are in time: F1 averaged over these tolerances
SPAN_S = tuple(ms / 1000 for ms in range(50, 501, 50))
NUM_PAIRINGS = 16  # wrong pairings that the shuffled score averages

Times = Sequence[Sequence[float]]  # per clip, in seconds


def figures(detected_s: Times, true_s: Times) -> dict[str, float]:
    """All figures of one set of clips.

    Returns:
      `f1@100ms`, its 95 % bootstrap interval over clips (`f1_low`, `f1_high`), `precision`,
      `recall`, the numbers of times (`events` true and `heard` detected ones), `f1@150ms`, and
      the F1 of shuffled pairs at both tolerances; `f1@50-500ms`, the mean F1 over the tolerances
      `SPAN_S`, and that of shuffled pairs. One tolerance does not tell 0.2 s late from 0.4 s, for
      both are at chance; the mean does.
    """
    result: dict[str, float] = {"clips": len(true_s)}
    for tolerance_s in TOLERANCES_S:
        own = [onsets.count(d, t, tolerance_s) for d, t in zip(detected_s, true_s, strict=True)]
        total = sum(own, onsets.Counts())
        tag = f"@{round(tolerance_s * 1000)}ms"
        result[f"f1{tag}"] = total.f1
        result[f"shuffled_f1{tag}"] = shuffled_f1(detected_s, true_s, tolerance_s)
        if tolerance_s == TOLERANCES_S[0]:
            result["f1_low"], result["f1_high"] = bootstrap_f1(own)
            result["precision"], result["recall"] = total.precision, total.recall
            result["events"], result["heard"] = total.true, total.detected
    tag = f"@{round(SPAN_S[0] * 1000)}-{round(SPAN_S[-1] * 1000)}ms"
    result[f"f1{tag}"] = _mean([_f1(detected_s, true_s, t) for t in SPAN_S])
    result[f"shuffled_f1{tag}"] = _mean([shuffled_f1(detected_s, true_s, t) for t in SPAN_S])
    return result


def row(detected_s: Sequence[float], true_s: Sequence[float]) -> dict[str, float]:
    """Figures of one clip at the smaller tolerance."""
    counts = onsets.count(detected_s, true_s, TOLERANCES_S[0])
    return {
        "true": counts.true,
        "heard": counts.detected,
        "matched": counts.matched,
        f"f1@{round(TOLERANCES_S[0] * 1000)}ms": counts.f1,
    }


def shuffled_f1(detected_s: Times, true_s: Times, tolerance_s: float) -> float:
    """Mean F1 of detections paired with other clips' true times, over several rotations.

    Returns:
      nan for less than two clips, which cannot be paired wrongly.
    """
    scores = []
    for shift in rotations(len(true_s)):
        scores.append(_f1((*detected_s[shift:], *detected_s[:shift]), true_s, tolerance_s))
    return _mean(scores)


def _f1(detected_s: Times, true_s: Times, tolerance_s: float) -> float:
    counts = [onsets.count(d, t, tolerance_s) for d, t in zip(detected_s, true_s, strict=True)]
    return sum(counts, onsets.Counts()).f1


def _mean(values: Sequence[float]) -> float:
    """nan of none."""
    return float(np.mean(values)) if values else float("nan")


def rotations(count: int) -> list[int]:
    """By how many places clips are turned against each other so that none meets itself.

    Returns:
      Up to `NUM_PAIRINGS` numbers in [1, count - 1], evenly spread; none for less than two clips.
    """
    if count < 2:
        return []
    return np.unique(np.linspace(1, count - 1, NUM_PAIRINGS).round().astype(int)).tolist()


def bootstrap_f1(counts: Sequence[onsets.Counts]) -> tuple[float, float]:
    """95 % interval of the pooled F1 over resampled clips, fixed seed."""
    rows = np.array([[c.matched, c.detected + c.true] for c in counts], np.float64)

    def f1(pick: np.ndarray) -> float:
        matched, total = rows[pick].sum(axis=0)
        return 2 * matched / max(total, 1)

    found = bootstrap.interval(f1, len(rows))
    return found.low, found.high
