"""Onset average precision and count accuracy by hand, by scikit-learn, and CondFoleyGen's."""

import numpy as np
import pytest
from sklearn import metrics

from foley_jax.evaluation import onsets
from foley_jax.evaluation.statistics import onset_scores

RATE_HZ = 22050


def _detections(*pairs):
    times, confidence = zip(*pairs) if pairs else ((), ())
    return onset_scores.Detections(np.array(times), np.array(confidence))


def test_average_precision_by_hand():
    """Hits at ranks 1 and 3 of 3, of 4 true onsets: (1 + 2/3) / 4."""
    clips = [_detections((0.5, 0.9), (2.0, 0.5)), _detections((1.05, 0.4))]
    true = [[0.45, 1.0], [1.0, 3.0]]
    found = onset_scores.average_precision(clips, true)
    assert found == pytest.approx((1 + 2 / 3) / 4)


def test_equal_confidences_are_one_point_of_the_curve():
    clips = [_detections((0.5, 0.7), (2.0, 0.7))]
    assert onset_scores.average_precision(clips, [[2.0]]) == pytest.approx(0.5)


def test_one_true_onset_is_found_once():
    clips = [_detections((0.5, 0.9), (0.55, 0.8))]
    assert onset_scores.average_precision(clips, [[0.52]]) == 1.0  # the second comes after recall 1
    assert onset_scores.average_precision(clips, [[0.52, 3.0]]) == 0.5


def test_the_surest_detection_takes_the_nearest_onset():
    clips = [_detections((1.0, 0.9), (0.92, 0.8))]
    # 1.0 takes 1.01 and leaves 0.95 to 0.92
    assert onset_scores.average_precision(clips, [[0.95, 1.01]]) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_area_is_sklearns_where_everything_is_recalled(seed):
    """Every true onset has one detection; the others are far from all."""
    rng = np.random.default_rng(seed)
    true = np.arange(30.0)
    times = np.concatenate([true + rng.uniform(-0.09, 0.09, 30), np.arange(40) + 100.0])
    confidence = rng.integers(0, 12, 70) / 12  # with ties
    want = metrics.average_precision_score(times < 50, confidence)
    order = rng.permutation(70)
    clip = onset_scores.Detections(times[order], confidence[order])
    assert onset_scores.average_precision([clip], [true]) == pytest.approx(want, rel=1e-12)


def _area_by_thresholds(clips, true, tolerance_s):
    """Area under precision over recall, matching anew what is at least as sure as a threshold."""
    levels = np.unique(np.concatenate([c.confidence for c in clips]))[::-1]
    area, recalled, num_true = 0.0, 0.0, sum(len(times) for times in true)
    for level in levels:
        matched = taken = 0
        for clip, times in zip(clips, true):
            free = list(times)
            sure = [i for i in np.argsort(-clip.confidence) if clip.confidence[i] >= level]
            taken += len(sure)
            for i in sure:
                near = min(free, key=lambda t: abs(t - clip.times_s[i]), default=np.inf)
                if abs(near - clip.times_s[i]) <= tolerance_s:
                    free.remove(near)
                    matched += 1
        area += (matched / num_true - recalled) * matched / taken
        recalled = matched / num_true
    return area


@pytest.mark.parametrize("seed", range(5))
def test_area_is_that_of_one_threshold_after_the_other(seed):
    """Dense clips: detections compete, onsets are missed, alarms are false."""
    rng = np.random.default_rng(seed)
    clips, true = [], []
    for _ in range(6):
        num = int(rng.integers(0, 20))
        clips.append(onset_scores.Detections(rng.uniform(0, 3, num), rng.uniform(0, 1, num)))
        true.append(rng.uniform(0, 3, 12))
    found = onset_scores.average_precision(clips, true)
    assert found == pytest.approx(_area_by_thresholds(clips, true, 0.1), rel=1e-9)
    assert 0.02 < found < 0.9
    order = rng.permutation(6)  # neither clips nor detections nor the scale have an order to keep
    turned = [
        onset_scores.Detections(clips[i].times_s[::-1], np.exp(clips[i].confidence[::-1]))
        for i in order
    ]
    again = onset_scores.average_precision(turned, [true[i] for i in order])
    assert again == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_count_accuracy_is_sklearns_accuracy_of_the_numbers(seed):
    rng = np.random.default_rng(seed)
    detected, true = ([np.zeros(n) for n in rng.integers(0, 4, 50)] for _ in range(2))
    want = metrics.accuracy_score([len(t) for t in true], [len(d) for d in detected])
    assert onset_scores.count_accuracy(detected, true) == pytest.approx(want, rel=1e-12)


def test_nothing_detected_scores_zero_and_nothing_true_nothing():
    assert onset_scores.average_precision([_detections()], [[1.0]]) == 0.0
    assert onset_scores.average_precision([_detections((1.0, 0.5))], [[3.0]]) == 0.0
    assert np.isnan(onset_scores.average_precision([_detections((1.0, 0.5))], [[]]))


def test_count_accuracy():
    assert onset_scores.count_accuracy([[1.0], [], [1.0]], [[9.0], [], [1.0, 2.0]]) == 2 / 3
    with pytest.raises(ValueError, match="0 clips"):
        onset_scores.count_accuracy([], [])


def test_confidence_of_the_detector_orders_strikes_by_strength():
    frame_s, starts, levels = 0.016, (0.5, 1.5, 2.5), (0.4, 0.9, 0.6)
    t = np.arange(250) * frame_s
    mel_FT = np.zeros((128, 250))
    for start, level in zip(starts, levels):
        mel_FT += level * np.where(t >= start, np.exp(-(t - start) / 0.1), 0.0)
    times, confidence = onsets.Detector().peaks(mel_FT, frame_s)
    np.testing.assert_allclose(times, starts, atol=2 * frame_s)
    assert list(np.argsort(confidence)) == list(np.argsort(levels))
    np.testing.assert_array_equal(times, onsets.Detector()(mel_FT, frame_s))


def _clicks(samples, levels, num=RATE_HZ * 2):
    audio = np.zeros(num)
    audio[list(samples)] = levels
    return audio


def test_condfoleygen_by_hand():
    """0.2 s is found, 1 s missed, 1.5 s a false alarm: positives 0.5 and 0, a negative 1."""
    at = [int(0.2 * RATE_HZ), int(1.5 * RATE_HZ)]
    found = onset_scores.condfoleygen([at[0], RATE_HZ], at, _clicks(at, [0.5, -1.0]))
    assert found.accuracy == 0.5
    want = metrics.average_precision_score([1, 1, 0], [0.5, 0.0, 1.0])
    assert found.average_precision == pytest.approx(want, rel=1e-12)


def test_condfoleygen_forgets_what_comes_after_the_last_detection():
    """Three true onsets, one detection: misses before it count, those after it do not."""
    true = [4410, 22050, 39690]
    first = onset_scores.condfoleygen(true, [4410], _clicks([4410], [1.0]))
    assert (first.accuracy, first.average_precision) == (pytest.approx(1 / 3), 1.0)


def test_condfoleygen_gives_a_silent_clip_full_precision():
    silent = onset_scores.condfoleygen([4410, 22050], [], np.zeros(RATE_HZ))
    assert (silent.accuracy, silent.average_precision) == (0.0, 1.0)
    nothing = onset_scores.condfoleygen([], [], np.zeros(RATE_HZ))
    assert nothing.accuracy == 0.0 and np.isnan(nothing.average_precision)
    alarm = onset_scores.condfoleygen([], [4410], _clicks([4410], [1.0]))
    assert (alarm.accuracy, alarm.average_precision) == (0.0, 0.0)


def test_condfoleygen_thins_detections_and_skips_while_it_does():
    """All within 50 ms of the loudest: the walk removes every other one."""
    at = [4000, 4100, 4200, 4300]
    found = onset_scores.condfoleygen([4000], at, _clicks(at, [1.0, 0.1, 0.1, 0.1]))
    # 4000 is kept, 4100 and 4300 go, 4200 is kept next: one hit and one false alarm, both of
    # confidence 1 (the loudest sample within 50 ms)
    assert found == onset_scores.CondFoleyGenScores(1.0, 0.5)


def test_unusable_onsets_are_refused():
    with pytest.raises(ValueError, match="expected equal"):
        onset_scores.Detections(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="as many"):
        onset_scores.average_precision([], [[1.0]])
    with pytest.raises(ValueError, match="detected onsets"):
        onset_scores.condfoleygen([], [99], np.zeros(50))
