"""Pixels folded into channels and back.

B batch, H W space, C channels; channels last.
"""

import jax


def space_to_depth(x_BHWC: jax.Array, patch: tuple[int, int]) -> jax.Array:
    """Folds ph x pw pixels into channels: [B, H, W, C] -> [B, H/ph, W/pw, ph*pw*C]."""
    (b, h, w, c), (ph, pw) = x_BHWC.shape, patch
    if (ph, pw) == (1, 1):
        return x_BHWC
    if h % ph or w % pw:
        raise ValueError(f"image of {h}x{w} pixels cannot be cut into patches of {ph}x{pw}")
    x = x_BHWC.reshape(b, h // ph, ph, w // pw, pw, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // ph, w // pw, ph * pw * c)


def depth_to_space(x_BHWC: jax.Array, patch: tuple[int, int]) -> jax.Array:
    """The inverse of `space_to_depth`: [B, H, W, ph*pw*C] -> [B, H*ph, W*pw, C]."""
    (b, h, w, c), (ph, pw) = x_BHWC.shape, patch
    if (ph, pw) == (1, 1):
        return x_BHWC
    x = x_BHWC.reshape(b, h, w, ph, pw, c // (ph * pw)).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * ph, w * pw, c // (ph * pw))
