"""The full-size super-resolution U-Net against the official network (float32, seeded weights)."""

import jax.numpy as jnp
from mm_diffusion import official
import numpy as np
import official_command
import pytest

pytestmark = pytest.mark.slow
ATOL = 2e-4  # as tests/README.md says; the official code differs from itself by 4e-6


def test_full_size_equals_official(tmp_path):
    arrays, meta = official.golden("sr_full")
    values = official.state("sr_keys", official.PREFIX + "sr:")
    run = official_command.network("mm_diffusion/super_resolution", values, tmp_path).jit(
        lambda model, *args: model(*args)
    )
    x = official.fill.inp("sr.x", (1, 3, 256, 256), official.PREFIX)
    low = official.fill.inp("sr.low64", (1, 3, 64, 64), official.PREFIX).clip(-1, 1)
    x, low = (np.moveaxis(a, 1, -1) for a in (x, low))
    got = np.moveaxis(run(x, low, jnp.asarray(meta["t"])), -1, 1)
    for part, want in (
        (got[:, :, ::2, ::2], arrays["out_2x"]),
        (got[:, :, 100:104], arrays["out_rows_100_104"]),
    ):
        print("worst", np.abs(part - want).max())
        np.testing.assert_allclose(part, want, atol=ATOL)
