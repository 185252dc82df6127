"""Onset average precision and count accuracy, right and as CondFoleyGen counts them.

N onsets, L audio samples.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from foley_jax.evaluation.statistics import bootstrap, pairs

TOLERANCE_S = 0.1
CONFIDENCE_S = 0.05  # CondFoleyGen's confidence is the loudest sample within this of an onset


CONTRASTS = (pairs.Contrast("onset_ap"), pairs.Contrast("count_accuracy"))


@dataclasses.dataclass(frozen=True)
class Detections:
    """Onsets of one clip.

    Attributes:
      times_s: float [N].
      confidence: float [N], larger is surer; comparable between clips.
    """

    times_s: np.ndarray
    confidence: np.ndarray

    def __post_init__(self):
        shapes = np.shape(self.times_s), np.shape(self.confidence)
        if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
            raise ValueError(f"times and confidence of shapes {shapes}, expected equal [N]")


def average_precision(
    detected: Sequence[Detections],
    true_s: Sequence[Sequence[float]],
    tolerance_s: float = TOLERANCE_S,
) -> float:
    """Area under precision over recall of the detections of all clips, the surest first.

        sum_k (R_k - R_(k-1)) P_k over the distinct confidences k

    Every detection, the surest first, takes the nearest true onset of its clip within the
    tolerance that is still free; without one it is a false alarm. A true onset that nothing takes
    is never recalled.

    Args:
      detected: detections per clip; give a detector a low threshold, so that the curve is whole.
      true_s: true times per clip, seconds.
    Returns:
      In [0, 1]; nan without a true onset.
    Raises:
      ValueError: unequal numbers of clips.
    Source: PASCAL VOC's matching, scikit-learn's `average_precision_score` without interpolation.
    """
    if len(detected) != len(true_s):
        raise ValueError(f"{len(detected)} clips detected, {len(true_s)} true; expected as many")
    return _Curve(detected, true_s, tolerance_s).area(range(len(true_s)))


def figures(
    detected: Sequence[Detections],
    detected_s: Sequence[Sequence[float]],
    true_s: Sequence[Sequence[float]],
) -> dict[str, float]:
    """`onset_ap` and `count_accuracy` (`CONTRASTS`), each with its interval and for wrong pairs.

    Args:
      detected: of a low threshold, for the curve.
      detected_s: those of the detector that count.
      true_s: true times per clip.
    """
    count, turns = len(true_s), pairs.rotations(len(true_s))
    ap, accuracy = CONTRASTS
    right_N = np.array([len(d) == len(t) for d, t in zip(detected_s, true_s, strict=True)])
    wrong = [count_accuracy((*detected_s[t:], *detected_s[:t]), true_s) for t in turns]
    found = pairs.of_means(accuracy, right_N, wrong)
    if not any(len(times) for times in true_s):
        return found | pairs.without(ap, "no clip has a true onset")
    curve = _Curve(detected, true_s, TOLERANCE_S)

    def area(pick: np.ndarray) -> float:  # a selection without a true onset counts as 0
        found = curve.area(pick)
        return 0.0 if np.isnan(found) else found

    wrong = [average_precision((*detected[t:], *detected[:t]), true_s) for t in turns]
    return found | pairs.figures(ap, lambda: bootstrap.interval(area, count), wrong, count)


class _Curve:
    """Hits of all clips, found once; clips are chosen afterwards."""

    def __init__(
        self,
        detected: Sequence[Detections],
        true_s: Sequence[Sequence[float]],
        tolerance_s: float,
    ):
        self.hits = [_hits(d, t, tolerance_s) for d, t in zip(detected, true_s, strict=True)]
        self.confidence = [np.asarray(d.confidence, np.float64) for d in detected]
        self.num_true = np.array([len(times) for times in true_s], int)

    def area(self, pick: Sequence[int]) -> float:
        """Returns the area of some clips, perhaps repeated; nan without a true onset."""
        num_true = int(self.num_true[list(pick)].sum())
        if not num_true:
            return float("nan")
        if not any(len(self.hits[i]) for i in pick):
            return 0.0
        hits, confidence = ([each[i] for i in pick] for each in (self.hits, self.confidence))
        return _area(np.concatenate(hits), np.concatenate(confidence), num_true)


def count_accuracy(
    detected_s: Sequence[Sequence[float]], true_s: Sequence[Sequence[float]]
) -> float:
    """Share of clips in which as many onsets are heard as there are.

    Raises:
      ValueError: no clips, or unequal numbers of clips.
    Source: CondFoleyGen predict_onset.py, "#onset acc".
    """
    if len(detected_s) != len(true_s) or not len(true_s):
        raise ValueError(f"{len(detected_s)} clips detected, {len(true_s)} true; expected as many")
    return float(np.mean([len(d) == len(t) for d, t in zip(detected_s, true_s)]))


@dataclasses.dataclass(frozen=True)
class CondFoleyGenScores:
    """One clip's official figures: `accuracy` is the share of true onsets that are found."""

    accuracy: float
    average_precision: float


def condfoleygen(
    true_L: Sequence[int],
    detected_L: Sequence[int],
    audio_L: np.ndarray,
    sample_rate_hz: int = 22050,
    tolerance_s: float = TOLERANCE_S,
) -> CondFoleyGenScores:
    """The official scores of one clip, with what is odd in them.

    Onsets come from `audio_peaks.onset_times(..., delta=0.3)` at 22050 Hz. Loudness stands for
    confidence. Detections are thinned to 50 ms. True onsets are walked in order; each takes the
    detection whose own sample is the loudest. Odd, and kept: the thinning skips detections while
    it removes others; when no detections are left the remaining true onsets are forgotten, so
    they do not lower the precision; a missed onset enters as a positive of confidence 0, so a
    silent clip scores 1. Use `average_precision` for a figure that means what its name says.
    Different: the window of the confidence is cut at the start of the audio, where the official
    one fails; without any onset at all the average precision is nan.

    Args:
      true_L, detected_L: onsets as sample numbers, ascending.
      audio_L: the judged audio, float [L].
    Raises:
      ValueError: an onset outside of the audio, or no audio.
    Source: CondFoleyGen predict_onset.py, `eval_osnets`, `onset_nms`.
    """
    loud = np.abs(np.asarray(audio_L, np.float64))
    if loud.ndim != 1 or not loud.size or any(not 0 <= o < loud.size for o in detected_L):
        raise ValueError(f"detected onsets {list(detected_L)[:3]} in an audio clip of {loud.shape}")
    span = np.ptp(loud)
    loud = (loud - loud.min()) / (span if span else 1.0)
    half = int(CONFIDENCE_S * sample_rate_hz)

    def confidence(onset: int) -> float:
        return float(loud[max(0, onset - half) : onset + half].max())

    gap = CONFIDENCE_S * sample_rate_hz
    free = _official_thinning(detected_L, [confidence(o) for o in detected_L], gap)
    labels, scores, found = [], [], 0
    for onset in true_L:
        near = [o for o in free if abs(o - onset) < tolerance_s * sample_rate_hz]
        labels.append(True)
        if not near:
            scores.append(0.0)
            continue
        taken = near[int(np.argsort(loud[near])[-1])]
        found += 1
        scores.append(confidence(taken))
        free.remove(taken)
        if not free:
            break
    labels += [False] * len(free)
    scores += [confidence(o) for o in free]
    positives = sum(labels)
    if not positives:
        # scikit-learn's answer to false alarms alone
        return CondFoleyGenScores(0.0, 0.0 if labels else float("nan"))
    area = _area(np.array(labels), np.array(scores), positives)
    return CondFoleyGenScores(found / len(true_L), area)


def _official_thinning(onsets: Sequence[int], confidence: Sequence[float], gap: float) -> list[int]:
    """CondFoleyGen's `onset_nms`, which changes the list that it walks."""
    left, kept = list(onsets), []
    for i in np.argsort(confidence)[::-1]:
        if onsets[i] not in left:
            continue
        kept.append(int(onsets[i]))
        left.remove(onsets[i])
        for other in left:  # removing skips the next one
            if abs(onsets[i] - other) < gap:
                left.remove(other)
    return sorted(kept)


def _hits(detected: Detections, true_s: Sequence[float], tolerance_s: float) -> np.ndarray:
    """Which detections of one clip take a true onset, bool [N]."""
    times, truth = np.asarray(detected.times_s, np.float64), np.asarray(true_s, np.float64)
    free, hits = np.ones(len(truth), bool), np.zeros(len(times), bool)
    if not len(truth):
        return hits
    for i in np.lexsort((times, -np.asarray(detected.confidence, np.float64))):
        apart = np.where(free, np.abs(truth - times[i]), np.inf)
        if apart.min() <= tolerance_s:
            hits[i], free[apart.argmin()] = True, False
    return hits


def _area(hits: np.ndarray, confidence: np.ndarray, num_true: int) -> float:
    """Area under precision over recall; equal confidences are one point of the curve."""
    order = np.argsort(-confidence, kind="stable")
    matched = np.cumsum(hits[order])
    last = np.append(np.diff(confidence[order]) != 0, True)  # of each run of equal confidences
    matched, taken = matched[last], np.flatnonzero(last) + 1
    gained = np.diff(matched, prepend=0)
    return float(np.sum(gained * matched / taken) / num_true)
