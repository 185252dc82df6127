"""Multi-head attention.

B batch, T queries, S keys, N heads, D width of a head, C channels.
"""

from typing import NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels import dispatch
from foley_jax.layers import dense


class KeysValues(NamedTuple):
    """Keys and values that queries attend to: [B, S, N, D]."""

    keys_BSND: jax.Array
    values_BSND: jax.Array


class MultiHeadAttention(nnx.Module):
    """Self- or cross-attention without q/k/v biases. Source: SD attention.CrossAttention."""

    def __init__(
        self,
        channels: int,
        context_dim: int,
        num_heads: int,
        *,
        implementation: str = "auto",
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if channels % num_heads:
            raise ValueError(f"{channels} channels cannot be split into {num_heads} heads")
        build = {"dtype": dtype, "rngs": rngs}
        self.to_q = dense.dense(channels, channels, use_bias=False, **build)
        self.to_k = dense.dense(context_dim, channels, use_bias=False, **build)
        self.to_v = dense.dense(context_dim, channels, use_bias=False, **build)
        self.to_out = dense.dense(channels, channels, **build)
        self.num_heads = num_heads
        self.implementation = implementation

    def keys_values(self, context_BSC: jax.Array) -> KeysValues:
        """Returns the keys and values of a context [B, S, C].

        `__call__` takes them in its place.
        """
        return KeysValues(*(self._split(to(context_BSC)) for to in (self.to_k, self.to_v)))

    def __call__(
        self,
        x_BTC: jax.Array,
        context: jax.Array | KeysValues | None = None,
        *,
        bias_BNTS: jax.Array | None = None,
    ) -> jax.Array:
        """[B, T, C] attends to a context [B, S, C] (to itself when None) -> [B, T, C]."""
        q = self._split(self.to_q(x_BTC))
        if not isinstance(context, KeysValues):
            context = self.keys_values(x_BTC if context is None else context)
        y = dispatch.attention(q, *context, bias_BNTS=bias_BNTS, implementation=self.implementation)
        return self.to_out(y.reshape(x_BTC.shape))  # [B, T, N, D] -> [B, T, C]

    def _split(self, y_BTC: jax.Array) -> jax.Array:
        """[B, T, N*D] -> [B, T, N, D]."""
        return y_BTC.reshape(*y_BTC.shape[:2], self.num_heads, -1)
