"""Long inputs cut into windows and joined again."""

import numpy as np
import pytest

from foley_jax.mm_diffusion.sampling import windows


@pytest.mark.parametrize("length", [1, 15, 16, 17, 30, 44, 100])
def test_windows_cover_everything_and_end_with_it(length):
    at = windows.starts(length, 16, 2)
    covered = np.zeros(max(length, 16), int)
    for first in at:
        covered[first : first + 16] += 1
    assert covered[:length].min() >= 1
    assert at[-1] + 16 == max(length, 16)
    assert all(b - a <= 14 for a, b in zip(at, at[1:]))


def test_what_was_cut_joins_to_what_it_was():
    x = np.random.default_rng(0).standard_normal((37, 3)).astype(np.float32)
    at = windows.starts(37, 16, 2)
    parts = windows.cut(x, at, 16)
    np.testing.assert_allclose(windows.join(list(parts), at, 37), x, rtol=1e-6, atol=1e-6)


def test_short_input_repeats_its_last_entry_and_is_cut_again():
    x = np.arange(5.0)
    part = windows.cut(x, [0], 8)
    assert part.tolist() == [[0, 1, 2, 3, 4, 4, 4, 4]]
    assert windows.join(list(part), [0], 5).tolist() == x.tolist()


def test_parts_that_disagree_fade_without_a_step():
    joined = windows.join([np.zeros(16), np.ones(16)], [0, 12], 28)
    assert np.all(np.diff(joined) >= 0) and np.diff(joined).max() < 0.5
    assert joined[11] == 0 and joined[16] == 1


def test_overlap_must_be_smaller_than_the_window():
    with pytest.raises(ValueError, match="overlap is 16, expected 0 to 15"):
        windows.starts(40, 16, 16)
