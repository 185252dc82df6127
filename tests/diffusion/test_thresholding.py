"""Dynamic thresholding against its definition; the samplers' tests hold the goldens."""

import jax.numpy as jnp
import numpy as np

from foley_jax.diffusion import thresholding


def test_threshold_scales_each_item_by_its_own_quantile():
    x0 = jnp.stack([jnp.linspace(-0.5, 0.5, 1000), jnp.linspace(-4.0, 4.0, 1000)])
    made = np.asarray(thresholding.dynamic(x0))
    np.testing.assert_array_equal(made[0], x0[0])  # within [-1, 1]: untouched
    limit = np.quantile(np.abs(x0[1]), 0.995)
    np.testing.assert_allclose(made[1], np.clip(x0[1], -limit, limit) / limit, rtol=1e-6)
