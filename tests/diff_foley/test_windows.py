"""Windows cover any length, overlap enough, and join without drift."""

import numpy as np
import pytest

from foley_jax.diff_foley import windows
from foley_jax.media import specs

SPEC = windows.WindowSpec(num_rows=32, num_frames=512, fps=4.0, audio=specs.AudioSpec(hop=256))


@pytest.mark.parametrize("num_rows", [1, 31, 32, 33, 40, 60, 61, 2400])
def test_windows_cover_every_row_and_overlap(num_rows):
    first = windows.starts(num_rows, SPEC)
    covered = np.zeros(max(num_rows, 32), int)
    for row in first:
        covered[row : row + 32] += 1
    assert covered[:num_rows].min() >= 1
    assert first[-1] == max(0, num_rows - 32)
    gaps = np.diff(first)
    assert (gaps > 0).all() and (gaps <= 28).all()


def test_short_video_repeats_its_last_row():
    rows_LD = np.arange(5, dtype=np.float32)[:, None]
    first, cut = windows.cut(rows_LD, SPEC)
    assert first == [0]
    np.testing.assert_array_equal(cut[0, :, 0], np.minimum(np.arange(32), 4))


def test_no_rows_is_an_error():
    with pytest.raises(ValueError, match="no feature rows"):
        windows.cut(np.zeros((0, 4)), SPEC)


def test_join_places_windows_by_absolute_time():
    """An impulse at a known time lands within one mel frame of it, ten minutes in."""
    num_rows = 2400
    first, _ = windows.cut(np.zeros((num_rows, 1)), SPEC)
    event_s = 599.0
    mels = []
    for row in first:
        mel_FT = np.zeros((2, 512), np.float32)
        frame = round((event_s - row / 4.0) / SPEC.audio.frame_s)
        if 0 <= frame < 512:
            mel_FT[:, frame] = 1.0
        mels.append(mel_FT)
    joined = windows.join(mels, first, SPEC)
    peak_s = joined[0].argmax() * SPEC.audio.frame_s
    assert abs(peak_s - event_s) <= SPEC.audio.frame_s


def test_join_of_equal_windows_is_the_signal_itself():
    signal_FT = np.random.default_rng(0).random((3, 1000)).astype(np.float32)
    spec = windows.WindowSpec(32, 512, 4.0, specs.AudioSpec(hop=250))
    first = [0, 20, 30]  # 16 mel frames a row
    joined = windows.join([signal_FT[:, 16 * f : 16 * f + 512] for f in first], first, spec)
    np.testing.assert_allclose(joined, signal_FT[:, : 480 + 512], atol=1e-6)
