"""Attention: one function that every model calls, and the multi-head layer around it.

B batch, T queries, S keys, N heads, D width of a head, C channels.
"""

from typing import NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels.cpu import attention as cpu_attention
from foley_jax.kernels.tpu import attention as fused_attention
from foley_jax.kernels.tpu import splash
from foley_jax.layers import convolution, plain_attention
from foley_jax.runtime import sharding

IMPLEMENTATIONS = ("auto", "xla", "cpu", "cudnn", "fused", "flash")


def attention(
    q_BTND: jax.Array,
    k_BSND: jax.Array,
    v_BSND: jax.Array,
    *,
    bias_BNTS: jax.Array | None = None,
    implementation: str = "auto",
) -> jax.Array:
    """softmax(q k^T / sqrt(D) + bias) v, softmax in float32.

    Args:
      q_BTND, k_BSND, v_BSND: queries, keys, values, any float dtype.
      bias_BNTS: added to the logits; its axes may be 1.
      implementation: "xla" anywhere; "cudnn" on NVIDIA GPUs in half precision, D % 8 == 0;
        "fused" and "flash" on TPUs, without bias, for the shapes that `fused_attention.fits` and
        `splash.fits` take; "cpu" without bias, see `cpu_attention`; "auto": the best of
        these (but "cudnn") that is possible here.
    Returns:
      [B, T, N, D], dtype of the values.
    Raises:
      ValueError: unknown implementation.
    """
    if implementation == "auto":
        implementation = _best(q_BTND, k_BSND) if bias_BNTS is None else "xla"
    if implementation == "cpu":
        return cpu_attention.attention(q_BTND, k_BSND, v_BSND)
    if implementation == "fused":
        return fused_attention.attention(q_BTND, k_BSND, v_BSND)
    if implementation == "flash":
        return splash.attention(q_BTND, k_BSND, v_BSND)
    if implementation == "cudnn":
        return jax.nn.dot_product_attention(
            q_BTND, k_BSND, v_BSND, bias=bias_BNTS, implementation="cudnn"
        )
    if implementation != "xla":
        raise ValueError(f"attention implementation {implementation!r} is not in {IMPLEMENTATIONS}")
    return plain_attention.attention(q_BTND, k_BSND, v_BSND, bias_BNTS)


def _best(q_BTND: jax.Array, k_BSND: jax.Array) -> str:
    """The implementation for these shapes, without bias, where it is traced for."""
    if sharding.on_one_cpu():
        return "cpu"
    if not sharding.on_tpu():
        return "xla"
    if fused_attention.fits(q_BTND, k_BSND):
        return "fused"
    return "flash" if splash.fits(q_BTND, k_BSND) else "xla"


class KeysValues(NamedTuple):
    """What queries attend to: keys and values [B, S, N, D]."""

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
        self.to_q = convolution.dense(channels, channels, use_bias=False, **build)
        self.to_k = convolution.dense(context_dim, channels, use_bias=False, **build)
        self.to_v = convolution.dense(context_dim, channels, use_bias=False, **build)
        self.to_out = convolution.dense(channels, channels, **build)
        self.num_heads = num_heads
        self.implementation = implementation

    def keys_values(self, context_BSC: jax.Array) -> KeysValues:
        """Of a context [B, S, C]; `__call__` takes them in its place."""
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
        y = attention(q, *context, bias_BNTS=bias_BNTS, implementation=self.implementation)
        return self.to_out(y.reshape(x_BTC.shape))  # [B, T, N, D] -> [B, T, C]

    def _split(self, y_BTC: jax.Array) -> jax.Array:
        """[B, T, N*D] -> [B, T, N, D]."""
        return y_BTC.reshape(*y_BTC.shape[:2], self.num_heads, -1)
