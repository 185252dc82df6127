"""Sampling with a part that is known: the solver moves all, and the known part ends as it is."""

import jax
import jax.numpy as jnp

from foley_jax.diffusion import gaussian
from foley_jax.diffusion.schedule import Schedule


def keeping(
    denoise: gaussian.DenoiseFn, schedule: Schedule, known: jax.Array, is_known: jax.Array
) -> gaussian.DenoiseFn:
    """A denoiser that finds the known clean data wherever there is some.

    The known part then walks exactly from its noise to itself under any solver of few or many
    steps, and at each of them the network sees it as noisy as the part that is made. Nothing is
    drawn, so that the same noise gives the same result.

    Args:
      denoise: (x_t, float32 model time [B]) -> eps, of one array [B, ...].
      schedule: of the diffusion.
      known: clean data, float32; it broadcasts to x_t.
      is_known: bool; it broadcasts to x_t.
    Returns:
      An eps denoiser.
    """

    def kept(x_t: jax.Array, t_B: jax.Array) -> jax.Array:
        eps = denoise(x_t, t_B)
        clean = jnp.broadcast_to(known, x_t.shape)
        return jnp.where(is_known, gaussian.to_eps(schedule, x_t, t_B, clean, "x0"), eps)

    return kept
