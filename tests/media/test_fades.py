"""The two halves of a cross-fade."""

import numpy as np
import pytest

from foley_jax.media import fades


@pytest.mark.parametrize("count", [0, 1, 2, 320, 999])
def test_fading_in_and_out_adds_to_one(count):
    found = fades.ramp(count)
    assert found.shape == (count,) and found.dtype == np.float32
    np.testing.assert_allclose(found + found[::-1], np.ones(count), atol=1e-7)  # rounding
    assert (np.diff(found) > 0).all() and ((found > 0) & (found < 1)).all()
