"""Statistics of group norms on GPUs, in one pass over memory.

B batch, S pixels, C channels.
"""

import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.kernels import plain


def centred(x_BSC: jax.Array, num_groups: int) -> tuple[jax.Array, jax.Array]:
    """x less its mean of each group and all pixels, and the variance there: [B, S, C], [B, C].

    The variance is E[(x - p)^2] - E[x - p]^2 about a value p of the group itself, its mean at the
    first pixel: XLA reads x once for both sums, and few digits are lost, however large the mean.

    Args:
      x_BSC: float32.
      num_groups: of neighbouring channels.
    """
    pivot_B1C = plain.of_groups(x_BSC[:, 0], num_groups)[:, None]
    shifted = x_BSC - lax.stop_gradient(pivot_B1C)  # the result does not depend on it
    mean_BC = plain.of_groups(shifted.mean(1), num_groups)
    square_BC = plain.of_groups((shifted * shifted).mean(1), num_groups)
    variance_BC = jnp.maximum(square_BC - mean_BC * mean_BC, 0.0)
    return shifted - mean_BC[:, None], variance_BC
