"""Group norms on GPUs: two passes over memory, and nothing in float32 that is kept.

B batch, S pixels, C channels.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.kernels import plain


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def group_norm(
    x_BSC: jax.Array, scale_C: jax.Array, bias_C: jax.Array, num_groups: int, epsilon: float
) -> jax.Array:
    """`dispatch.group_norm`, whose gradients keep x itself and a few numbers a channel.

    The variance is E[(x - p)^2] - E[x - p]^2 about a value p of the group itself, its mean at the
    first pixel: XLA reads x once for both sums, and few digits are lost, however large the mean.
    The sums of the gradients take one pass as well. What JAX derives would write x less its mean,
    and its gradient, to memory in float32.
    """
    return _forward(x_BSC, scale_C, bias_C, num_groups, epsilon)[0]


def _forward(x_BSC, scale_C, bias_C, num_groups, epsilon):
    x32 = x_BSC.astype(jnp.float32)
    pivot_BC = plain.of_groups(x32[:, 0], num_groups)
    shifted = x32 - pivot_BC[:, None]
    mean_BC = plain.of_groups(shifted.mean(1), num_groups)
    square_BC = plain.of_groups((shifted * shifted).mean(1), num_groups)
    rate_BC = lax.rsqrt(jnp.maximum(square_BC - mean_BC * mean_BC, 0.0) + epsilon)
    mean_BC = mean_BC + pivot_BC
    y = (x32 - mean_BC[:, None]) * (rate_BC * scale_C[None])[:, None] + bias_C[None, None]
    return y.astype(x_BSC.dtype), (x_BSC, scale_C, mean_BC, rate_BC)


def _backward(num_groups, epsilon, kept, dy_BSC):
    del epsilon
    x_BSC, scale_C, mean_BC, rate_BC = kept
    centred = x_BSC.astype(jnp.float32) - mean_BC[:, None]
    dy = dy_BSC.astype(jnp.float32)
    pixels = x_BSC.shape[1]
    sum_BC = dy.sum(1)
    product_BC = (dy * centred).sum(1) * rate_BC
    # of a group: the mean of the gradient, and of its product with the normalised x
    along_BC = plain.of_groups(sum_BC * scale_C[None], num_groups) / pixels
    across_BC = plain.of_groups(product_BC * scale_C[None], num_groups) / pixels
    dx = (
        dy * (rate_BC * scale_C[None])[:, None]
        - centred * (rate_BC * rate_BC * across_BC)[:, None]
        - (rate_BC * along_BC)[:, None]
    )
    return dx.astype(x_BSC.dtype), product_BC.sum(0), sum_BC.sum(0)


group_norm.defvjp(_forward, _backward)
