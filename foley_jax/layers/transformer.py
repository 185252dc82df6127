"""Transformer over the pixels of a feature map, with cross-attention to a context.

B batch, H W space, C channels, L context features, D context width, N heads.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels import dispatch, plain
from foley_jax.layers import attention, conv, dense, locality, lora
from foley_jax.layers import norm as normalization

FEED_FORWARD_MULT = 4  # SD attention.FeedForward


class GatedFeedForward(nnx.Module):
    """GEGLU: (x W_a) * gelu(x W_b), then back to the width. Source: SD attention.FeedForward."""

    def __init__(self, channels: int, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        hidden = FEED_FORWARD_MULT * channels
        self.proj_in = dense.dense(channels, 2 * hidden, dtype=dtype, rngs=rngs)
        self.proj_out = dense.dense(hidden, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., C] -> [..., C]."""
        return dispatch.feed_forward(x.astype(self.proj_in.dtype), self._weights())

    def _weights(self) -> plain.FeedForwardWeights:
        """The kernels and biases in the compute dtype, those of value and gate apart."""
        kernel, bias, *out = (
            p.astype(layer.dtype)
            for layer in (self.proj_in, self.proj_out)
            for p in (lora.kernel_of(layer), layer.bias[...])
        )
        h = kernel.shape[1] // 2
        inner = (kernel[:, :h], bias[:h], kernel[:, h:], bias[h:])
        return plain.FeedForwardWeights(*inner, *out)


class TransformerBlock(nnx.Module):
    """Self-attention (optional), cross-attention, feed-forward, each with its own layer norm."""

    def __init__(
        self,
        channels: int,
        num_heads: int,
        context_dim: int,
        *,
        self_attention: bool = True,
        use_locality: bool = False,
        feature_s: float = locality.FEATURE_S,
        implementation: str = "auto",
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        build = {"dtype": dtype, "rngs": rngs}
        heads = {"num_heads": num_heads, "implementation": implementation, **build}
        norm = lambda: normalization.layer_norm(channels, **build)  # noqa: E731
        self.norm1 = norm() if self_attention else None
        self.attn1 = (
            attention.MultiHeadAttention(channels, channels, **heads) if self_attention else None
        )
        self.norm2 = norm()
        # few keys with a bias: written out is the right implementation everywhere
        self.attn2 = attention.MultiHeadAttention(
            channels, context_dim, **heads | {"implementation": "xla"}
        )
        self.locality = (
            locality.Locality(num_heads, channels, feature_s=feature_s, **build)
            if use_locality
            else None
        )
        self.norm3 = norm()
        self.ff = GatedFeedForward(channels, **build)

    def keys_values(self, context_BLD: jax.Array) -> attention.KeysValues:
        """Returns the keys and values of the cross-attention.

        `__call__` takes them in place of the context.
        """
        return self.attn2.keys_values(context_BLD)

    def _cross(
        self,
        h_BHWC: jax.Array,
        context: jax.Array | attention.KeysValues,
        relative_BWL: jax.Array | None,
    ) -> jax.Array:
        b, h, w, c = h_BHWC.shape
        query, bias = self.norm2(h_BHWC), None
        if self.locality is not None:
            query = query + self.locality.position(relative_BWL)
            bias_BNWL = self.locality.bias(relative_BWL)
            # one bias per column, the same on all features: [B, N, W, L] -> [B, N, H*W, L]
            n, s = bias_BNWL.shape[1], bias_BNWL.shape[-1]
            bias = jnp.broadcast_to(bias_BNWL[:, :, None], (b, n, h, w, s)).reshape(b, n, h * w, s)
        y = self.attn2(query.reshape(b, h * w, c), context, bias_BNTS=bias)
        return y.reshape(b, h, w, c)

    def __call__(
        self,
        h_BHWC: jax.Array,
        context: jax.Array | attention.KeysValues,
        relative_BWL: jax.Array | None = None,
    ) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]; `relative_BWL` as `locality.relative_times` gives it."""
        b, h, w, c = h_BHWC.shape
        if self.attn1 is not None:
            tokens = self.norm1(h_BHWC).reshape(b, h * w, c)
            h_BHWC = h_BHWC + self.attn1(tokens).reshape(b, h, w, c)
        h_BHWC = h_BHWC + self._cross(h_BHWC, context, relative_BWL)
        return h_BHWC + self.ff(self.norm3(h_BHWC))


class SpatialTransformer(nnx.Module):
    """norm, 1x1 conv, transformer blocks, zero 1x1 conv, + input. Source: SD SpatialTransformer."""

    def __init__(
        self,
        channels: int,
        num_heads: int,
        context_dim: int,
        *,
        depth: int = 1,
        num_groups: int = 32,
        self_attention: bool = True,
        use_locality: bool = False,
        feature_s: float = locality.FEATURE_S,
        implementation: str = "auto",
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        build = {"dtype": dtype, "rngs": rngs}
        self.norm = normalization.GroupNorm32(
            channels, num_groups=num_groups, epsilon=1e-6, rngs=rngs
        )
        self.proj_in = conv.Conv2d(channels, channels, (1, 1), **build)
        self.transformer_blocks = nnx.List(
            [
                TransformerBlock(
                    channels,
                    num_heads,
                    context_dim,
                    self_attention=self_attention,
                    use_locality=use_locality,
                    feature_s=feature_s,
                    implementation=implementation,
                    **build,
                )
                for _ in range(depth)
            ]
        )
        self.proj_out = conv.Conv2d(channels, channels, (1, 1), zero_init=True, **build)

    def keys_values(self, context_BLD: jax.Array) -> list[attention.KeysValues]:
        """Returns the keys and values of every block.

        `__call__` takes them in place of the context.
        """
        return [block.keys_values(context_BLD) for block in self.transformer_blocks]

    def __call__(
        self,
        x_BHWC: jax.Array,
        context: jax.Array | list[attention.KeysValues],
        relative_BWL: jax.Array | None = None,
    ) -> jax.Array:
        """[B, H, W, C] and a context [B, L, D], or its keys and values -> [B, H, W, C]."""
        h = self.proj_in(self.norm(x_BHWC))
        for i, block in enumerate(self.transformer_blocks):
            h = block(h, context[i] if isinstance(context, list) else context, relative_BWL)
        return x_BHWC + self.proj_out(h)
