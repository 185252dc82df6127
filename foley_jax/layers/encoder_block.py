"""The plain pre-norm transformer block: x += attention(norm(x)), x += mlp(norm(x)).

What ViT, AST, CLIP and their kin are made of. Cross-attention, gates and rotary positions are
elsewhere (`transformer.py`).
B batch, T tokens, S keys, N heads, D width of a head, C channels.
"""

from typing import Literal

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels import dispatch
from foley_jax.layers import dense, norm

Gelu = Literal["exact", "tanh", "quick"]
MLP_MULT = 4  # hidden width of the MLP, in widths of the block


def gelu(x: jax.Array, form: Gelu) -> jax.Array:
    """x times the normal distribution's integral: exact, by tanh, or by sigmoid(1.702 x).

    Raises:
      ValueError: another form.
    Source: torch `GELU`, `GELU(approximate="tanh")`; OpenAI CLIP `QuickGELU`.
    """
    if form == "quick":
        return x * jax.nn.sigmoid(1.702 * x)
    if form not in ("exact", "tanh"):
        raise ValueError(f"gelu is {form!r}, expected 'exact', 'tanh' or 'quick'")
    return jax.nn.gelu(x, approximate=form == "tanh")


class SelfAttention(nnx.Module):
    """Multi-head self-attention with biases; q, k and v from one layer or from three.

    Source: timm `Attention`, torch `MultiheadAttention`, transformers `ViTSelfAttention`.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        *,
        fused: bool = True,
        extra_key: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Args:
        fused: one layer gives [q | k | v], each [N, D]; else three layers do.
        extra_key: one more key and value that are weights, for all heads (torch `bias_k`,
          `bias_v`), after those of the tokens.
        """
        if channels % num_heads:
            raise ValueError(f"{channels} channels cannot be split into {num_heads} heads")
        build = {"dtype": dtype, "rngs": rngs}
        self.qkv = dense.dense(channels, 3 * channels, **build) if fused else None
        self.query, self.key, self.value = (
            None if fused else dense.dense(channels, channels, **build) for _ in range(3)
        )
        self.bias_k, self.bias_v = (
            nnx.Param(jnp.zeros((1, 1, channels), jnp.float32)) if extra_key else None
            for _ in range(2)
        )
        self.proj = dense.dense(channels, channels, **build)
        self.num_heads = num_heads

    def queries_keys_values(self, x_BTC: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns q, k and v of the tokens, each [B, T, N, D], without the extra key."""
        if self.qkv is not None:
            parts = jnp.split(self.qkv(x_BTC), 3, axis=-1)
        else:
            parts = [layer(x_BTC) for layer in (self.query, self.key, self.value)]
        q, k, v = (self._split(part) for part in parts)
        return q, k, v

    def __call__(self, x_BTC: jax.Array, *, bias_BNTS: jax.Array | None = None) -> jax.Array:
        """[B, T, C] -> [B, T, C].

        Args:
          x_BTC: tokens.
          bias_BNTS: added to the logits, axes may be 1: a mask is 0 and -inf; S is T, or T + 1
            with an extra key.
        """
        q, k, v = self.queries_keys_values(x_BTC)
        if self.bias_k is not None:
            k, v = (
                jnp.concatenate([part, self._extra(bias, part)], axis=1)
                for part, bias in ((k, self.bias_k), (v, self.bias_v))
            )
        y = dispatch.attention(q, k, v, bias_BNTS=bias_BNTS)
        return self.proj(y.reshape(x_BTC.shape))  # [B, T, N, D] -> [B, T, C]

    def _extra(self, bias: nnx.Param, like_BTND: jax.Array) -> jax.Array:
        """[1, 1, N*D] -> [B, 1, N, D]."""
        b, _, n, d = like_BTND.shape
        extra = bias[...].astype(like_BTND.dtype).reshape(1, 1, n, d)
        return jnp.broadcast_to(extra, (b, 1, n, d))

    def _split(self, y_BTC: jax.Array) -> jax.Array:
        """[B, T, N*D] -> [B, T, N, D]."""
        return y_BTC.reshape(*y_BTC.shape[:2], self.num_heads, -1)


class Mlp(nnx.Module):
    """Linear, GELU, linear. Source: timm `Mlp`."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        gelu_form: Gelu = "exact",
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.fc1 = dense.dense(channels, hidden, dtype=dtype, rngs=rngs)
        self.fc2 = dense.dense(hidden, channels, dtype=dtype, rngs=rngs)
        self.gelu_form = gelu_form

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., C] -> [..., C]."""
        return self.fc2(gelu(self.fc1(x), self.gelu_form))


class EncoderBlock(nnx.Module):
    """x += attn(norm1(x)); x += mlp(norm2(x)). Source: timm vision_transformer `Block`."""

    def __init__(
        self,
        channels: int,
        num_heads: int,
        *,
        epsilon: float,
        hidden: int | None = None,
        gelu_form: Gelu = "exact",
        fused: bool = True,
        extra_key: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Args:
        epsilon: of both layer norms; the sources use 1e-5, 1e-6 and 1e-12.
        hidden: width of the MLP; None is 4 times the channels.
        fused, extra_key: see `SelfAttention`.
        """
        build = {"dtype": dtype, "rngs": rngs}
        self.norm1 = norm.layer_norm(channels, epsilon=epsilon, **build)
        self.attn = SelfAttention(channels, num_heads, fused=fused, extra_key=extra_key, **build)
        self.norm2 = norm.layer_norm(channels, epsilon=epsilon, **build)
        hidden = hidden or MLP_MULT * channels
        self.mlp = Mlp(channels, hidden, gelu_form=gelu_form, **build)

    def __call__(self, x_BTC: jax.Array, *, bias_BNTS: jax.Array | None = None) -> jax.Array:
        """[B, T, C] -> [B, T, C]; `bias_BNTS` as in `SelfAttention`."""
        x_BTC = x_BTC + self.attn(self.norm1(x_BTC), bias_BNTS=bias_BNTS)
        return x_BTC + self.mlp(self.norm2(x_BTC))
