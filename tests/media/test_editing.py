"""A span of audio made anew: all else is kept, and nothing jumps at the borders."""

import numpy as np
import pytest

from foley_jax.media import audio as audio_io
from foley_jax.media import editing

RATE = 16000


def test_columns_outside_the_span_and_within_the_audio_are_known():
    kept, column_s = editing.Kept(np.zeros(RATE, np.float32), 0.25, 0.5), 0.128
    begins = np.arange(16) * column_s
    wanted = [(b + column_s <= 0.25 or b >= 0.5) and b + column_s <= 1 for b in begins]
    assert editing.known_columns(kept, 16, column_s, RATE).tolist() == wanted
    assert 0 < sum(wanted) < 16


def test_outside_the_span_every_sample_is_kept():
    rng = np.random.default_rng(0)
    old, new = rng.uniform(-1, 1, (2, RATE)).astype(np.float32)
    made = editing.spliced(editing.Kept(old, 0.25, 0.5), new, RATE)
    np.testing.assert_array_equal(made[:4000], old[:4000])
    np.testing.assert_array_equal(made[8000:], old[8000:])
    np.testing.assert_array_equal(made[4400:7600], new[4400:7600])
    # the share of the new one grows without a jump
    ones = editing.spliced(editing.Kept(old * 0, 0.25, 0.5), np.ones_like(new), RATE)
    assert np.abs(np.diff(ones)).max() < 0.005


def test_a_span_beyond_full_scale_leaves_the_rest_as_loud_as_it_was(tmp_path):
    rng = np.random.default_rng(0)
    old = rng.uniform(-0.5, 0.5, RATE).astype(np.float32)
    new = rng.uniform(-3, 3, RATE).astype(np.float32)
    kept = editing.Kept(old, 0.25, 0.5)
    for name, own in (("old", old), ("made", editing.spliced(kept, new, RATE))):
        audio_io.write_wav(tmp_path / f"{name}.wav", own, RATE)
    before, after = (audio_io.load(tmp_path / f"{name}.wav", RATE) for name in ("old", "made"))
    np.testing.assert_array_equal(after[:4000], before[:4000])
    np.testing.assert_array_equal(after[8000:], before[8000:])
    assert 0.9 < np.abs(after[4000:8000]).max() <= 1
    broken = np.full_like(new, np.nan)
    assert np.isnan(editing.spliced(kept, broken, RATE)[4000:8000]).all()


def test_audio_is_extended_beyond_its_end():
    old, new = np.ones(RATE // 2, np.float32), np.full(RATE, 0.8, np.float32)
    made = editing.spliced(editing.Kept(old, 0.5, 1.0), new, RATE)
    np.testing.assert_array_equal(made[: RATE // 2], old)
    np.testing.assert_array_equal(made[RATE // 2 + 320 :], np.float32(0.8))
    assert editing.spliced(None, new, RATE) is new


@pytest.mark.parametrize("span", [(2.0, 1.0), (-1.0, 1.0), (3.0, 4.0), (1.0, 1.0)])
def test_a_span_that_is_none_is_refused(span):
    with pytest.raises(ValueError, match="the span to regenerate is"):
        editing.checked(span, 3.0)
    assert editing.checked((1.0, 9.0), 3.0) == (1.0, 3.0)
