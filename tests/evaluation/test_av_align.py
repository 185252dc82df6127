"""AV-Align on made-up peaks and on clips drawn here; later audio scores less."""

import jolts
import numpy as np
import pytest

from foley_jax.evaluation import embedded
from foley_jax.evaluation.statistics import av_align, scores
from foley_jax.media import audio_peaks

SPREAD_S = 0.06  # how unsure of its timing the made-up system is
DELAYS_S = (0.0, 0.1, 0.2, 0.4)


def _peaks(seen, heard, tolerance=0.1):
    return av_align.Peaks(np.array(seen), np.array(heard), tolerance)


def test_motion_peaks_are_strict_maxima_inside():
    motion = np.array([9.0, 1.0, 2.0, 1.0, 3.0, 3.0, 1.0, 5.0])
    np.testing.assert_allclose(av_align.motion_peaks(motion, 4.0), [0.5])
    assert av_align.motion_peaks(motion[:2], 4.0).size == 0


def test_score_is_intersection_over_union():
    peaks = _peaks([1.0, 2.0, 3.0], [1.05, 2.5])
    for preset in ("default", "official"):
        assert av_align.score(peaks, preset) == pytest.approx(1 / 4)
        assert av_align.score(_peaks([1.0, 2.0], [2.0, 1.0]), preset) == 1.0
        assert av_align.score(_peaks([1.0], []), preset) == 0.0
        assert np.isnan(av_align.score(_peaks([], []), preset))


def test_official_lets_several_onsets_share_one_motion():
    peaks = _peaks([1.0], [0.95, 1.0, 1.05])
    assert av_align.score(peaks, "official") == pytest.approx(3 / 1)
    assert av_align.score(peaks) == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(5))
def test_official_is_a_walk_over_the_onsets(seed):
    """Each onset that any motion peak is near counts once; a hit leaves the union once."""
    rng = np.random.default_rng(seed)
    seen, heard = np.sort(rng.uniform(0, 5, 20)), np.sort(rng.uniform(0, 5, 30))
    met = 0
    for time_s in heard:
        for peak_s in seen:
            if peak_s - 0.1 < time_s < peak_s + 0.1:
                met += 1
                break
    want = met / (len(seen) + len(heard) - met)
    assert av_align.score(_peaks(seen, heard), "official") == pytest.approx(want, rel=1e-12)
    assert 0 < av_align.score(_peaks(seen, heard)) <= want


def test_official_tolerance_is_open():
    peaks = _peaks([1.0], [1.5], tolerance=0.5)
    assert av_align.score(peaks, "official") == 0.0
    assert av_align.score(peaks) == 1.0


def test_clips_without_peaks_are_counted_not_scored():
    clips = [_peaks([1.0], [1.0]), _peaks([], []), _peaks([1.0], [5.0])]
    found = av_align.av_align(clips)
    assert found.mean == 0.5 and found.num_without_peaks == 1
    np.testing.assert_array_equal(found.score_N, [1.0, np.nan, 0.0])
    assert np.isnan(av_align.av_align(clips[1:2]).mean)


def test_unusable_clips_are_refused():
    with pytest.raises(ValueError, match="preset is 'best'"):
        av_align.score(_peaks([], []), "best")
    with pytest.raises(ValueError, match="no clips"):
        av_align.av_align([])
    with pytest.raises(ValueError, match="fps is 0"):
        av_align.find_peaks(np.zeros((3, 8, 8, 3), np.uint8), np.zeros(100), 0.0)


@pytest.fixture(scope="module")
def clips():
    """Motion seen in drawn images, their events, and when an unsure system audio clips them."""
    rng = np.random.default_rng(0)
    events = [jolts.events(rng) for _ in range(8)]
    sounded = [times + SPREAD_S * rng.normal(size=len(times)) for times in events]
    peaks = [av_align.find_peaks(jolts.image(e, rng), np.zeros(9), jolts.FPS) for e in events]
    return [(p.seen_s, e, s) for p, e, s in zip(peaks, events, sounded)]


def _strictly_falling(values):
    return all(a > b for a, b in zip(values, values[1:]))


@pytest.mark.slow
def test_jolts_are_seen_where_they_are(clips):
    for seen_s, events_s, _ in clips:
        assert len(seen_s) == len(events_s)
        assert np.all((seen_s - events_s >= -1e-9) & (seen_s - events_s <= 1 / jolts.FPS))


def test_delayed_audio_has_strictly_less_av_align(clips):
    rng = np.random.default_rng(1)
    rate = audio_peaks.RATE_HZ
    audio_clips = [jolts.waveform(sounded, rng, rate) for _, _, sounded in clips]
    peaks = []
    for delay_s in DELAYS_S:
        heard = [audio_peaks.onset_times(jolts.delayed(a, delay_s, rate)) for a in audio_clips]
        peaks.append([av_align.Peaks(c[0], h, 1 / jolts.FPS) for c, h in zip(clips, heard)])
    for preset in ("default", "official"):
        means = [av_align.av_align(p, preset).mean for p in peaks]
        assert _strictly_falling(means), means
        assert means[0] > 0.5 and means[-1] < 0.1


@pytest.mark.slow
def test_delayed_audio_has_strictly_less_onset_f1(clips):
    rng = np.random.default_rng(2)
    rate = embedded.AUDIO.sample_rate_hz
    audio_clips = [jolts.waveform(sounded, rng, rate) for _, _, sounded in clips]
    detector = embedded.onsets.Detector()
    found = []
    for delay_s in DELAYS_S:
        delayed = [jolts.delayed(a, delay_s, rate) for a in audio_clips]
        heard = [embedded.hear(a, detector).onsets_s for a in delayed]
        found.append(scores.figures(heard, [events for _, events, _ in clips])["f1@100ms"])
    assert _strictly_falling(found), found
    assert found[0] > 0.8 and found[-1] < 0.1
