"""Sampling that begins with something that is there already, noised: SDEdit.

Source: Meng et al. 2022 (SDEdit).
"""

import jax
import jax.numpy as jnp

from foley_jax.diffusion.schedule import Schedule


def skipped(strength: float, num_steps: int) -> int:
    """Returns how many of a sampler's steps are left out: as many as `1 - strength` of them.

    At least one step stays, and all do only at a strength of 1.

    Args:
      strength: how much is made anew, in (0, 1].
      num_steps: of the sampler, at least 2.
    """
    if strength == 1:
        return 0
    return num_steps - min(max(1, round(strength * num_steps)), num_steps - 1)


def noised(schedule: Schedule, clean: jax.Array, noise: jax.Array, time: jax.Array) -> jax.Array:
    """Returns what a sampler has at a time if it is to end near `clean`.

    Args:
      clean: float32 [...] data.
      noise: standard normal, of the same shape.
      time: model time, float32 scalar.
    """
    alpha, sigma = schedule.alpha_sigma_at(time)
    return alpha * jnp.asarray(clean) + sigma * noise
