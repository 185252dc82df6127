"""The mathematics that `dispatch` chooses forms of, as any device computes it.

B batch, T frames or queries, S keys, N heads, D width of a head, P pixels, F H W space, C channels
in, O channels out; channels last.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

Padding = tuple[tuple[int, int], tuple[int, int]]
LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv2d(x_BHWC: jax.Array, kernel_hwCO: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Convolution of one stride for both axes and zeros around: [B, H', W', O]."""
    return lax.conv_general_dilated(
        x_BHWC, kernel_hwCO, (stride, stride), padding, dimension_numbers=LAYOUT
    )


def conv3d(x_BFHWC: jax.Array, kernel_fhwCO: jax.Array) -> jax.Array:
    """3x3x3 convolution that keeps F, H and W: [B, F, H, W, O]."""
    return lax.conv_general_dilated(
        x_BFHWC,
        kernel_fhwCO,
        (1, 1, 1),
        ((1, 1),) * 3,
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )


def temporal_conv(x_BTPC: jax.Array, kernel_3CO: jax.Array) -> jax.Array:
    """Three neighbouring frames, zeros beyond the ends: [B, T, P, O].

    One product gives every frame's part in the frame after it, in itself and in the one before;
    then those parts are added.
    """
    return add_to_neighbours(jnp.matmul(x_BTPC, side_by_side(kernel_3CO)))


def side_by_side(kernel_3CO: jax.Array) -> jax.Array:
    """[3, C, O] -> [C, 3*O], or with an image's axes [3, h, w, C, O] -> [h, w, C, 3*O]."""
    return jnp.moveaxis(kernel_3CO, 0, -2).reshape(*kernel_3CO.shape[1:-1], -1)


def add_to_neighbours(parts_BTPO: jax.Array) -> jax.Array:
    """Adds three parts side by side to the frame after, the same and the one before."""
    after, same, before = jnp.split(parts_BTPO, 3, axis=-1)
    still = ((0, 0), (0, 0))
    return (
        jnp.pad(after[:, :-1], ((0, 0), (1, 0), *still))
        + same
        + jnp.pad(before[:, 1:], ((0, 0), (0, 1), *still))
    )


def nearest(x_BHWC: jax.Array) -> jax.Array:
    """Repeats every pixel 2x2 by a broadcast (no gather): [B, H, W, C] -> [B, 2H, 2W, C]."""
    b, h, w, c = x_BHWC.shape
    x = jnp.broadcast_to(x_BHWC[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def max_pool(x_BHWC: jax.Array) -> jax.Array:
    """Maxima of 3x3, stride 2, one pixel around that never wins: [B, ceil(H/2), ceil(W/2), C]."""
    return lax.reduce_window(
        x_BHWC,
        -jnp.inf,
        lax.max,
        (1, 3, 3, 1),
        (1, 2, 2, 1),
        ((0, 0), (1, 1), (1, 1), (0, 0)),
    )


def of_groups(x_BC: jax.Array, num_groups: int) -> jax.Array:
    """[B, C] -> [B, C], each channel the mean over its group of neighbouring channels."""
    b, c = x_BC.shape
    mean_BG1 = x_BC.reshape(b, num_groups, -1).mean(-1, keepdims=True)
    return jnp.broadcast_to(mean_BG1, (b, num_groups, c // num_groups)).reshape(b, c)


def centred(x_BSC: jax.Array, num_groups: int) -> tuple[jax.Array, jax.Array]:
    """x less its mean of each group and all pixels, and the variance there: [B, S, C], [B, C]."""
    centred = x_BSC - of_groups(x_BSC.mean(1), num_groups)[:, None]
    return centred, of_groups((centred * centred).mean(1), num_groups)


class FeedForwardWeights(NamedTuple):
    """(x value + value_bias) gelu(x gate + gate_bias), times out, + out_bias."""

    value_CH: jax.Array
    value_bias_H: jax.Array
    gate_CH: jax.Array
    gate_bias_H: jax.Array
    out_HC: jax.Array
    out_bias_C: jax.Array


def attention(
    q_BTND: jax.Array,
    k_BSND: jax.Array,
    v_BSND: jax.Array,
    bias_BNTS: jax.Array | None = None,
) -> jax.Array:
    """softmax(q k^T / sqrt(D) + bias) v, softmax in float32; see `dispatch.attention`."""
    scale = q_BTND.shape[-1] ** -0.5
    logits_BNTS = jnp.einsum(
        "btnd,bsnd->bnts", q_BTND * scale, k_BSND, preferred_element_type=jnp.float32
    )
    if bias_BNTS is not None:
        logits_BNTS = logits_BNTS + bias_BNTS.astype(jnp.float32)
    weights_BNTS = jax.nn.softmax(logits_BNTS, axis=-1).astype(v_BSND.dtype)
    return jnp.einsum("bnts,bsnd->btnd", weights_BNTS, v_BSND)
