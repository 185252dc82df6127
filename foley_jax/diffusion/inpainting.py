"""Sampling with a part that is known: the solver moves all, and the known part ends as it is."""

import jax
import jax.numpy as jnp

from foley_jax.diffusion import flow, gaussian
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


def keeping_flow(
    velocity_fn: gaussian.DenoiseFn, noise: jax.Array, known: jax.Array, is_known: jax.Array
) -> gaussian.DenoiseFn:
    """`keeping` for a flow: the known part moves straight from its noise to itself.

    Its velocity is the same at all times, so that Euler's and Heun's steps, however few, end at the
    known data to rounding.

    Args:
      velocity_fn: (x_t, float32 times [B]) -> velocity, of one array [B, ...].
      noise: what sampling begins with at time 0, float32 [B, ...].
      known: clean data, float32; it broadcasts to `noise`.
      is_known: bool; it broadcasts to `noise`.
    Returns:
      A velocity function.
    """
    straight = flow.velocity(noise, jnp.broadcast_to(known, noise.shape))

    def kept(x_t: jax.Array, t_B: jax.Array) -> jax.Array:
        return jnp.where(is_known, straight, velocity_fn(x_t, t_B))

    return kept
