"""Sinusoidal embedding of the diffusion step."""

import math

import jax
import jax.numpy as jnp


def timestep_embedding(t_B: jax.Array, dim: int, max_period: float = 10000.0) -> jax.Array:
    """[cos(t f_0), ..., cos(t f_n), sin(t f_0), ..., sin(t f_n)], f_i = max_period^(-i / n).

    Args:
      t_B: steps, int or float (fractions allowed), in model time [0, num_steps).
      dim: even width of the embedding; n = dim / 2.
      max_period: the longest wave is 2 pi * max_period steps.
    Returns:
      float32 [B, dim].
    Raises:
      ValueError: `dim` is odd.
    Source: openaimodel util.timestep_embedding (cosine first).
    """
    if dim % 2:
        raise ValueError(f"timestep embedding needs an even width, got {dim}")
    half = dim // 2
    frequencies = jnp.exp(-math.log(max_period) * jnp.arange(half, dtype=jnp.float32) / half)
    angle_BN = t_B.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.cos(angle_BN), jnp.sin(angle_BN)], axis=-1)
