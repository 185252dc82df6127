"""Blocks of the flow network: streams that attend together or alone, modulated by a condition.

B batch, T positions of a stream, H heads, E width of a head, D width of the network.
"""

from collections.abc import Sequence

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.kernels import dispatch
from foley_jax.layers import dense, rotary
from foley_jax.layers import norm as normalization
from foley_jax.mmaudio.models import feed_forward

RMS_EPSILON = float(np.finfo(np.float32).eps)  # torch's default, in bfloat16 too


class Modulation(nnx.Module):
    """Shifts, scales and gates of a block: a linear map of SiLU(condition), zero at first."""

    def __init__(self, width: int, count: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.linear = dense.dense(width, count * width, zero_init=True, dtype=dtype, rngs=rngs)
        self.count = count

    def __call__(self, condition_BTD: jax.Array) -> list[jax.Array]:
        """Condition [B, T or 1, D] -> `count` arrays of its shape."""
        return jnp.split(self.linear(jax.nn.silu(condition_BTD)), self.count, axis=-1)


def modulated(x_BTD: jax.Array, shift_BTD: jax.Array, scale_BTD: jax.Array) -> jax.Array:
    """Layer norm of x without weights, times 1 + scale, plus shift."""
    return normalization.standardise(x_BTD) * (1 + scale_BTD) + shift_BTD


class HeadAttention(nnx.Module):
    """Queries, keys and values of one stream; each head's are normalised, then turned.

    The columns of the kernel are ordered [q, k, v][head][channel].
    """

    def __init__(self, width: int, num_heads: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        if width % num_heads:
            raise ValueError(f"a width of {width} cannot be split into {num_heads} heads")
        self.qkv = feed_forward.layer(width, 3 * width, 1, dtype=dtype, rngs=rngs)
        norm = {"epsilon": RMS_EPSILON, "dtype": dtype, "rngs": rngs}
        self.q_norm = nnx.RMSNorm(width // num_heads, **norm)
        self.k_norm = nnx.RMSNorm(width // num_heads, **norm)
        self.num_heads = num_heads

    def __call__(self, x_BTD: jax.Array, angles: jax.Array | None) -> tuple[jax.Array, ...]:
        """[B, T, D] -> three of [B, T, H, E]; `angles` as `rotary.angles`, None for no position."""
        b, t, _ = x_BTD.shape
        qkv = self.qkv(x_BTD).reshape(b, t, 3, self.num_heads, -1)  # [B, T, 3, H, E]
        q, k, v = (qkv[:, :, i] for i in range(3))
        q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = rotary.rotate(q, angles), rotary.rotate(k, angles)
        return q, k, v


class StreamBlock(nnx.Module):
    """One stream's part of a block: what it brings to the attention, and what it makes of it.

    Source: MMAudio mmaudio/model/transformer_layers.py `MMDitSingleBlock`.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        kernel_size: int,
        *,
        pre_only: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Args:
        kernel_size: 3 where neighbours are seen, 1 for text.
        pre_only: the stream ends here; it gives queries, keys and values alone.
        """
        build = {"dtype": dtype, "rngs": rngs}
        self.modulation = Modulation(width, 2 if pre_only else 6, **build)
        self.attn = HeadAttention(width, num_heads, **build)
        self.pre_only = pre_only
        if not pre_only:
            self.linear1 = feed_forward.layer(width, width, kernel_size, **build)
            self.ffn = feed_forward.GatedFeedForward(width, kernel_size, **build)

    def before(
        self, x_BTD: jax.Array, condition: jax.Array, angles: jax.Array | None
    ) -> tuple[tuple[jax.Array, ...], list[jax.Array]]:
        """Returns queries, keys and values [B, T, H, E], and what `after` needs."""
        shift, scale, *rest = self.modulation(condition)
        return self.attn(modulated(x_BTD, shift, scale), angles), rest

    def after(self, x_BTD: jax.Array, seen_BTHE: jax.Array, rest: list[jax.Array]) -> jax.Array:
        """Adds what was attended to, then the feed-forward: [B, T, D]."""
        if self.pre_only:
            return x_BTD
        gate, shift, scale, gate_ffn = rest
        x_BTD = x_BTD + self.linear1(seen_BTHE.reshape(x_BTD.shape)) * gate
        return x_BTD + self.ffn(modulated(x_BTD, shift, scale)) * gate_ffn

    def __call__(self, x_BTD: jax.Array, condition: jax.Array, angles: jax.Array) -> jax.Array:
        """A block of this stream alone: [B, T, D] -> [B, T, D]."""
        qkv, rest = self.before(x_BTD, condition, angles)
        return self.after(x_BTD, dispatch.attention(*qkv), rest)


class JointBlock(nnx.Module):
    """Latents, frames and text attend to all of each other; then each goes on by itself.

    Source: MMAudio mmaudio/model/transformer_layers.py `JointBlock`.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        pre_only: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Args:
        pre_only: frames and text end here.
        """
        build = {"dtype": dtype, "rngs": rngs}
        self.latent_block = StreamBlock(width, num_heads, 3, **build)
        self.clip_block = StreamBlock(width, num_heads, 3, pre_only=pre_only, **build)
        self.text_block = StreamBlock(width, num_heads, 1, pre_only=pre_only, **build)

    def __call__(
        self,
        streams: Sequence[jax.Array],
        conditions: Sequence[jax.Array],
        angles: Sequence[jax.Array | None],
    ) -> list[jax.Array]:
        """Streams [B, T, D] in the order latents, frames, text, and what belongs to each."""
        blocks = (self.latent_block, self.clip_block, self.text_block)
        made = [
            block.before(x, condition, a)
            for block, x, condition, a in zip(blocks, streams, conditions, angles)
        ]
        q, k, v = (jnp.concatenate(parts, axis=1) for parts in zip(*(qkv for qkv, _ in made)))
        seen, start, out = dispatch.attention(q, k, v), 0, []
        for block, x, (_, rest) in zip(blocks, streams, made):
            out.append(block.after(x, seen[:, start : start + x.shape[1]], rest))
            start += x.shape[1]
        return out


class FinalLayer(nnx.Module):
    """Modulated norm and a convolution to the latents' channels, zero at first."""

    def __init__(self, width: int, out_dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        build = {"dtype": dtype, "rngs": rngs}
        self.modulation = Modulation(width, 2, **build)
        self.conv = feed_forward.layer(width, out_dim, 7, zero_init=True, **build)

    def __call__(self, x_BTD: jax.Array, condition: jax.Array) -> jax.Array:
        """[B, T, D] and a condition [B, T or 1, D] -> [B, T, C]."""
        return self.conv(modulated(x_BTD, *self.modulation(condition)))
