"""Convolutions over time as GPUs have them: two-dimensional ones of cuDNN, channels last.

B batch, T F frames, P pixels, H W space, C channels in, O channels out.
"""

import jax

from foley_jax.kernels import plain


def temporal_conv(x_BTPC: jax.Array, kernel_3CO: jax.Array) -> jax.Array:
    """Three neighbouring frames, zeros beyond the ends: [B, T, P, O].

    cuDNN reads x once and writes the result once; the plain form's product writes all three
    parts, three times as much, and reads them again.
    """
    return plain.conv2d(x_BTPC, kernel_3CO[:, None], 1, ((1, 1), (0, 0)))


def conv3d(x_BFHWC: jax.Array, kernel_fhwCO: jax.Array) -> jax.Array:
    """3x3x3 convolution that keeps F, H and W: [B, F, H, W, O].

    XLA gives three-dimensional ones channels first, and what stands before and after them with
    them: a whole level of a U-Net is then transposed on its way to every other convolution. Into
    few channels the parts of a frame, of the one before and of the one after are computed side by
    side and added.
    """
    *_, channels, out_channels = kernel_fhwCO.shape
    if 3 * out_channels > channels:
        return plain.conv3d(x_BFHWC, kernel_fhwCO)
    b, f, h, w, c = x_BFHWC.shape
    images, kernel_hwCK = x_BFHWC.reshape(b * f, h, w, c), plain.side_by_side(kernel_fhwCO)
    parts = plain.conv2d(images, kernel_hwCK, 1, ((1, 1), (1, 1)))
    y_BFPO = plain.add_to_neighbours(parts.reshape(b, f, h * w, -1))
    return y_BFPO.reshape(b, f, h, w, out_channels)
