"""Convolutions and pools of the networks behind the metrics, in any number of axes.

The layers of `foley_jax.layers` are made for training and have square kernels; these networks
are only read, and need uneven kernels, groups, three axes and torch's own ways to pad.
Channels last: x is [B, *space, C].
"""

from collections.abc import Sequence
from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.layers import batch_norm, initializers

Pads = Sequence[tuple[int, int]]
_SPACE = {1: "W", 2: "HW", 3: "DHW"}


def even(kernel: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Zeros that keep the size of odd kernels at stride 1: k // 2 on both sides."""
    return tuple((k // 2, k // 2) for k in kernel)


def same(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> Pads:
    """TensorFlow's SAME: as few zeros as give ceil(size / stride), the odd one at the end."""
    pads = []
    for n, k, s in zip(size, kernel, stride, strict=True):
        total = max(k - (n % s or s), 0)
        pads.append((total // 2, total - total // 2))
    return tuple(pads)


class Conv(nnx.Module):
    """[B, *space, in] -> [B, *space', out]; kernel [*k, in / groups, out]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        *,
        stride: int = 1,
        pads: Pads | None = None,
        groups: int = 1,
        bias: bool = True,
        rngs: nnx.Rngs,
    ):
        """Args:
        kernel: size by axis of space.
        pads: zeros before and after by axis; None: none.
        groups: channels are convolved in this many groups of their own.
        """
        shape = (*kernel, in_channels // groups, out_channels)
        self.kernel = nnx.Param(initializers.kernel()(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros((out_channels,), jnp.float32)) if bias else None
        self.stride, self.groups = stride, groups
        self.pads = tuple(map(tuple, pads)) if pads is not None else ((0, 0),) * len(kernel)

    def __call__(self, x: jax.Array, pads: Pads | None = None) -> jax.Array:
        """Convolves; `pads` of one call take the place of the layer's."""
        space = _SPACE[x.ndim - 2]
        y = lax.conv_general_dilated(
            x,
            self.kernel[...],
            window_strides=(self.stride,) * len(space),
            padding=self.pads if pads is None else pads,
            dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
            feature_group_count=self.groups,
        )
        if self.bias is None:
            return y
        return y + self.bias[...].reshape((1,) * (y.ndim - 1) + (-1,))


class ConvNorm(nnx.Module):
    """Convolution without bias, BatchNorm and (if wanted) ReLU; other fields are `Conv`'s."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        *,
        relu: bool = True,
        epsilon: float = batch_norm.EPSILON,
        rngs: nnx.Rngs,
        **conv: Any,
    ):
        self.conv = Conv(in_channels, out_channels, kernel, bias=False, rngs=rngs, **conv)
        self.bn = batch_norm.BatchNorm(out_channels, epsilon=epsilon, rngs=rngs)
        self.relu = relu

    def __call__(
        self, x: jax.Array, pads: Pads | None = None, *, batch_statistics: bool = False
    ) -> jax.Array:
        """Normalises with the stored statistics, or with those of this batch."""
        y = normalize(self.bn, self.conv(x, pads), batch_statistics=batch_statistics)
        return nnx.relu(y) if self.relu else y


def normalize(norm: batch_norm.BatchNorm, x: jax.Array, *, batch_statistics: bool) -> jax.Array:
    """Applies a BatchNorm with its stored statistics, or with those of x, which stay unstored.

    The variance is that of the centred values, as torch's: the one that training computes in one
    pass loses digits where three numbers are all there is to average.
    """
    if not batch_statistics:
        return norm(x, train=False)
    axes = tuple(range(x.ndim - 1))
    centred = x - x.mean(axes, keepdims=True)
    centred = centred - centred.mean(axes, keepdims=True)  # the last bits of the first mean
    variance = jnp.square(centred).mean(axes, keepdims=True)
    scale, bias = (p[...].reshape((1,) * len(axes) + (-1,)) for p in (norm.scale, norm.bias))
    return centred * lax.rsqrt(variance + norm.epsilon) * scale + bias


def max_pool(
    x: jax.Array, window: Sequence[int], stride: Sequence[int], pads: Pads, *, fill: float
) -> jax.Array:
    """Largest value of every window; `fill` stands beyond the edges.

    Args:
      fill: -inf as torch's own padding, or 0 where a network pads with zeros before it pools.
    """
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    return lax.reduce_window(
        x, -jnp.inf, lax.max, (1, *window, 1), (1, *stride, 1), padding="VALID"
    )


def average_pool(
    x: jax.Array, window: Sequence[int], stride: Sequence[int], pads: Pads
) -> jax.Array:
    """Mean of every window; zeros beyond the edges count, as torch does by default."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    total = lax.reduce_window(x, 0.0, lax.add, (1, *window, 1), (1, *stride, 1), padding="VALID")
    count = 1
    for n in window:
        count *= n
    return total / count
