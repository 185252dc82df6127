"""Layers over a sequence that see one position, or its neighbours too.

B batch, T positions, C channels.
"""

import math

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.layers import conv, dense, initializers

MULTIPLE = 256  # the hidden width is rounded up to one


def hidden_width(width: int) -> int:
    """Returns the hidden width of a gated feed-forward of ratio 4: two thirds of it, rounded up."""
    return MULTIPLE * math.ceil(int(2 * 4 * width / 3) / MULTIPLE)


def layer(
    in_dim: int,
    out_dim: int,
    kernel_size: int,
    *,
    use_bias: bool = True,
    zero_init: bool = False,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Returns a linear layer (kernel size 1) or a convolution, [B, T, in] -> [B, T, out].

    Linear layers start by Xavier's rule with a zero bias, convolutions as torch's.
    """
    build = {"use_bias": use_bias, "zero_init": zero_init, "dtype": dtype, "rngs": rngs}
    if kernel_size == 1:
        kernel_init = None if zero_init else initializers.xavier()
        return dense.dense(in_dim, out_dim, kernel_init=kernel_init, **build)
    return conv.Conv1d(in_dim, out_dim, kernel_size, **build)


class GatedFeedForward(nnx.Module):
    """w2(SiLU(w1 x) * w3 x), each linear or a convolution, without biases.

    Source: MMAudio mmaudio/model/low_level.py `MLP` and `ConvMLP`.
    """

    def __init__(
        self, width: int, kernel_size: int = 1, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs
    ):
        hidden, build = hidden_width(width), {"use_bias": False, "dtype": dtype, "rngs": rngs}
        self.w1 = layer(width, hidden, kernel_size, **build)
        self.w2 = layer(hidden, width, kernel_size, **build)
        self.w3 = layer(width, hidden, kernel_size, **build)

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """[B, T, C] -> [B, T, C]."""
        return self.w2(jax.nn.silu(self.w1(x_BTC)) * self.w3(x_BTC))


class InputProjection(nnx.Module):
    """A layer to the network's width, an activation, a gated feed-forward.

    Source: MMAudio mmaudio/model/networks.py, the `*_input_proj`.
    """

    def __init__(
        self,
        in_dim: int,
        width: int,
        *,
        kernel_size: int,
        inner_kernel_size: int,
        activation: str,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Args:
        kernel_size: of the layer.
        inner_kernel_size: of the three layers of the feed-forward.
        activation: "selu", "silu" or "none".
        """
        build = {"dtype": dtype, "rngs": rngs}
        self.layer = layer(in_dim, width, kernel_size, **build)
        self.mlp = GatedFeedForward(width, inner_kernel_size, **build)
        self.activation = activation

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """[B, T, in] -> [B, T, width]."""
        x = self.layer(x_BTC)
        if self.activation != "none":
            x = {"selu": jax.nn.selu, "silu": jax.nn.silu}[self.activation](x)
        return self.mlp(x)
