"""Rotary positions: neighbouring channels of queries and keys turned by an angle.

B batch, T positions, N heads, D width of a head.
"""

import jax
import jax.numpy as jnp
import numpy as np


def angles(positions: jax.Array, width: int, *, base: float = 10000.0) -> jax.Array:
    """Returns the angle of every position and pair of channels: position x base^(-2 i / width).

    Args:
      positions: float [..., T] in any unit: places in a sequence, or seconds times a rate. Two
        sequences whose positions count in one unit see each other's distance in it.
      width: of a head, even.
      base: the slowest pair turns once in about 2 pi base positions.
    Returns:
      float32 [..., T, width / 2].
    Raises:
      ValueError: `width` is odd.
    Source: Su et al. 2021, section 3.2.2.
    """
    if width % 2:
        raise ValueError(f"rotary positions turn pairs of channels, got a width of {width}")
    frequencies = (base ** (-np.arange(0, width, 2) / width)).astype(np.float32)
    positions = jnp.asarray(positions, jnp.float32)[..., None]
    return positions * frequencies.reshape((1,) * (positions.ndim - 1) + (-1,))


def rotate(x_BTND: jax.Array, angles: jax.Array) -> jax.Array:
    """Turns pairs of channels (a, b) to (a cos - b sin, a sin + b cos).

    The product is in float32 whatever the dtype of x.

    Args:
      x_BTND: queries or keys [B, T, N, D]; channels 2 i and 2 i + 1 are a pair.
      angles: float32 [T, D / 2] for all examples, or [B, T, D / 2], as `angles` gives them.
    Returns:
      [B, T, N, D] in the dtype of x.
    Source: MMAudio mmaudio/ext/rotary_embeddings.py.
    """
    if angles.ndim == 2:
        angles = angles[None]
    cos, sin = (f(angles)[:, :, None] for f in (jnp.cos, jnp.sin))  # [B or 1, T, 1, D/2]
    pairs = x_BTND.astype(jnp.float32).reshape(*x_BTND.shape[:-1], -1, 2)
    a, b = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=-1)
    return turned.reshape(x_BTND.shape).astype(x_BTND.dtype)
