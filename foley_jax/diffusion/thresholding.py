"""Data predictions kept within the range of data.

B batch, N elements of an item.
"""

import jax
import jax.numpy as jnp

from foley_jax.diffusion import gaussian


def dynamic(x0: gaussian.Tree, quantile: float = 0.995) -> gaussian.Tree:
    """Clips every item of every leaf to its own quantile of |x0|, at least 1, and scales to 1.

    Source: Imagen (Saharia et al. 2022), section 2.3; dpm_solver `thresholding=True`.
    """

    def leaf(a):
        flat_BN = jnp.abs(a).reshape(a.shape[0], -1)
        limit_B = jnp.maximum(jnp.quantile(flat_BN, quantile, axis=1), 1.0)
        limit = gaussian.per_example(limit_B, a)
        return jnp.clip(a, -limit, limit) / limit

    return jax.tree.map(leaf, x0)
