"""F1 of detected against true times over a set of clips, its spread, and what chance gives.

N clips, T tolerances.
"""

from collections.abc import Callable, Sequence

import numpy as np

from foley_jax.evaluation import onsets
from foley_jax.evaluation.statistics import bootstrap, pairs, remarks

TOLERANCES_S = (0.1, 0.15)
# how late audio clips are, not only whether they are in time: F1 averaged over these tolerances
SPAN_S = tuple(ms / 1000 for ms in range(50, 501, 50))

Times = Sequence[Sequence[float]]  # per clip, in seconds
_Pooled = Callable[[np.ndarray], float]  # figure of pooled counts, int or float [T, 3]
_FIRST, _SECOND = (SPAN_S.index(tolerance_s) for tolerance_s in TOLERANCES_S)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _f1(counts_3: np.ndarray) -> float:
    """Returns the F1 of matched, detected and true times.

    The harmonic mean of precision and recall.
    """
    matched, detected, true = counts_3
    return _ratio(2 * matched, detected + true)


_NO_EVENT = "no clip has a true event, and nothing is heard in any"
_NO_EVENT_HERE = "no true event, and nothing is heard"
# a figure, how it comes out of pooled counts, and why it may not
_FIGURES: tuple[tuple[pairs.Contrast, _Pooled, str], ...] = (
    (
        pairs.Contrast("f1@100ms", low="f1_low", high="f1_high"),
        lambda counts_T3: _f1(counts_T3[_FIRST]),
        _NO_EVENT,
    ),
    (pairs.Contrast("f1@150ms"), lambda counts_T3: _f1(counts_T3[_SECOND]), _NO_EVENT),
    (
        pairs.Contrast("f1@50-500ms"),
        lambda counts_T3: float(np.mean([_f1(counts_3) for counts_3 in counts_T3])),
        _NO_EVENT,
    ),
    (
        pairs.Contrast("precision"),
        lambda counts_T3: _ratio(counts_T3[_FIRST, 0], counts_T3[_FIRST, 1]),
        "nothing is heard in any clip",
    ),
    (
        pairs.Contrast("recall"),
        lambda counts_T3: _ratio(counts_T3[_FIRST, 0], counts_T3[_FIRST, 2]),
        "no clip has a true event",
    ),
)
CONTRASTS = tuple(contrast for contrast, _, _ in _FIGURES)


def figures(detected_s: Times, true_s: Times) -> dict[str, float]:
    """All figures of one set of clips.

    Returns:
      `f1@100ms`, `precision` and `recall`, `f1@150ms`, and `f1@50-500ms`, the mean F1 over the
      tolerances `SPAN_S`: one tolerance does not tell 0.2 s late from 0.4 s, for both are at
      chance; the mean does. Each with its 95 % bootstrap interval over clips and its mean over
      wrong pairings (`CONTRASTS`; the interval of `f1@100ms` is `f1_low` and `f1_high`). And the
      numbers of times (`events` true and `heard` detected ones). A figure that the clips do not
      give is absent and says why.
    """
    own_NT3 = _counts(detected_s, true_s)
    pooled_T3 = own_NT3.sum(axis=0)
    wrong_T3 = [
        _counts((*detected_s[shift:], *detected_s[:shift]), true_s).sum(axis=0)
        for shift in pairs.rotations(len(true_s))
    ]
    result: dict[str, float] = {"clips": len(true_s)}
    for contrast, figure, why in _FIGURES:
        if remarks.is_absent(figure(pooled_T3)):
            result |= pairs.without(contrast, why)
            continue
        interval = _interval(own_NT3, figure)
        wrong = [figure(counts_T3) for counts_T3 in wrong_T3]
        result |= pairs.figures(contrast, interval, wrong, len(true_s))
    _, result["heard"], result["events"] = pooled_T3[_FIRST].tolist()
    return result


def row(detected_s: Sequence[float], true_s: Sequence[float]) -> dict[str, float]:
    """Figures of one clip at the smaller tolerance."""
    counts = onsets.count(detected_s, true_s, TOLERANCES_S[0])
    f1 = counts.f1
    return {
        "true": counts.true,
        "heard": counts.detected,
        "matched": counts.matched,
        CONTRASTS[0].key: remarks.absent(_NO_EVENT_HERE) if remarks.is_absent(f1) else f1,
    }


def _counts(detected_s: Times, true_s: Times) -> np.ndarray:
    """Matched, detected and true times of every clip at every tolerance of the span, [N, T, 3]."""
    rows = []
    for detected, true in zip(detected_s, true_s, strict=True):
        counts = [onsets.count(detected, true, tolerance_s) for tolerance_s in SPAN_S]
        rows.append([(c.matched, c.detected, c.true) for c in counts])
    return np.array(rows, np.int64).reshape(len(rows), len(SPAN_S), 3)


def _interval(own_NT3: np.ndarray, figure: _Pooled) -> Callable[[], bootstrap.Interval]:
    """Returns the interval of a figure of pooled counts.

    A selection of clips that gives none counts as 0.
    """

    def of_sums(sums: np.ndarray) -> float:
        found = figure(sums.reshape(own_NT3.shape[1:]))
        return 0.0 if remarks.is_absent(found) else found

    return lambda: bootstrap.sums_interval(own_NT3.reshape(len(own_NT3), -1), of_sums)
