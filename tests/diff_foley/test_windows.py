"""Windows cover any length, overlap enough, and never drift."""

import numpy as np
import pytest

from foley_jax.diff_foley.sampling import notebook
from foley_jax.diffusion import windows

PAPER = windows.WindowSpec(
    num_features=32, num_columns=64, feature_s=0.25, column_s=0.128
)  # hop 256
EXACT = windows.WindowSpec(
    num_features=32, num_columns=64, feature_s=0.25, column_s=0.125
)  # hop 250
LENGTHS = [1, 2, 31, 32, 33, 40, 41, 60, 61, 100, 2399, 2400]


@pytest.mark.parametrize("spec", [PAPER, EXACT])
@pytest.mark.parametrize("num_features", LENGTHS)
def test_windows_cover_every_row_and_overlap(num_features, spec):
    plan = windows.plan(num_features, spec)
    covered = np.zeros(plan[-1].feature + 32, int)
    for window in plan:
        covered[window.feature : window.feature + 32] += 1
    assert covered.min() >= 1 and len(covered) >= num_features
    assert len(plan) == 1 if num_features <= 32 else plan[-2].feature < num_features - 32
    gaps = np.diff([w.feature for w in plan])
    assert (gaps > 0).all() and (gaps <= 28).all()
    columns = np.diff([w.column for w in plan])
    assert (columns > 0).all() and (columns < 64).all()


@pytest.mark.slow
def test_rows_and_columns_of_every_window_begin_together_for_ten_minutes():
    for num_features in range(1, 2401):
        for window in windows.plan(num_features, PAPER):
            assert abs(window.feature * 0.25 - window.column * 0.128) <= 0.016 + 1e-9
    for window in windows.plan(2400, EXACT):
        assert window.feature * 0.25 == window.column * 0.125


@pytest.mark.slow
def test_exact_windows_end_with_the_video_and_others_soon_after():
    assert all(windows.plan(n, EXACT)[-1].feature == n - 32 for n in range(33, 300))
    beyond = [windows.plan(n, PAPER)[-1].feature - (n - 32) for n in range(33, 2401)]
    assert min(beyond) == 0 and max(beyond) <= 17


def test_row_times_say_how_far_rows_are_from_the_first_column():
    plan = windows.plan(200, PAPER)
    times_NL = windows.feature_times(plan, PAPER)
    np.testing.assert_allclose(times_NL[0], np.arange(32) * 0.25)
    assert np.abs(times_NL[:, 0]).max() > 0.001  # not exact, and the model may know it
    for window, times_L in zip(plan, times_NL):
        absolute_s = window.column * 0.128 + times_L
        np.testing.assert_allclose(absolute_s, (window.feature + np.arange(32)) * 0.25, atol=1e-5)


def test_official_windows_lie_side_by_side_and_drop_the_rest():
    assert notebook.windows(100, PAPER) == [(0, 0), (32, 64), (64, 128)]
    assert notebook.windows(5, PAPER) == [(0, 0)]


def test_short_video_repeats_its_last_feature():
    features_LD = np.arange(5, dtype=np.float32)[:, None]
    cut_NLD = windows.window_features(features_LD, windows.plan(5, PAPER), PAPER)
    np.testing.assert_array_equal(cut_NLD[0, :, 0], np.minimum(np.arange(32), 4))


def test_no_rows_is_an_error():
    with pytest.raises(ValueError, match="no features"):
        windows.plan(0, PAPER)


def test_weights_add_to_one_and_are_smooth():
    first = [w.column for w in windows.plan(300, PAPER)]
    share_NV = windows.weights(first, 64)
    total = np.zeros(first[-1] + 64)
    for start, share in zip(first, share_NV):
        total[start : start + 64] += share
    np.testing.assert_allclose(total, 1.0, rtol=1e-6)
    # a hard cut would jump by 1; the paper's overlaps are at least 16 columns
    assert np.abs(np.diff(share_NV, axis=1)).max() < 0.15
    assert share_NV[:, [0, -1]][1:-1].max() < 0.01
    np.testing.assert_array_equal(windows.weights([0], 64), np.ones((1, 64)))


def test_join_places_windows_by_absolute_time():
    """An impulse lands within 60 ms of its time, anywhere in ten minutes."""
    plan, frame_s = windows.plan(2400, PAPER), 0.016
    first = [8 * w.column for w in plan]
    for event_s in (0.1, 8.03, 123.456, 599.0):
        mels = []
        for window in plan:
            mel_FT = np.zeros((2, 512), np.float32)
            # where a model puts it that takes the first feature for the first column
            frame = round((event_s - window.feature * 0.25) / frame_s)
            if 0 <= frame < 512:
                mel_FT[:, frame] = 1.0
            mels.append(mel_FT)
        joined = windows.join(mels, first)
        heard = np.flatnonzero(joined[0] > 0.01) * frame_s
        assert len(heard) and np.abs(heard - event_s).max() <= 0.06


def test_join_of_equal_windows_is_the_signal_itself():
    signal_FT = np.random.default_rng(0).random((3, 1000)).astype(np.float32)
    first = [0, 320, 480]
    joined = windows.join([signal_FT[:, f : f + 512] for f in first], first)
    np.testing.assert_allclose(joined, signal_FT[:, : 480 + 512], atol=1e-6)
