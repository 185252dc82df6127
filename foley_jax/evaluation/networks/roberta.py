"""RoBERTa, the text half of LAION-CLAP: a post-norm transformer with learned positions.

B batch, T tokens, C channels.
Source: Liu et al. 2019; transformers `RobertaModel`.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.layers import dense, encoder_block, initializers, norm

WIDTH, NUM_HEADS = 768, 12
VOCABULARY, PLACES = 50265, 514
START, PADDING, END = 0, 1, 2  # ids of the tokens <s>, <pad> and </s>
_EPSILON = 1e-5  # of all layer norms


class Layer(nnx.Module):
    """x = norm1(x + attn(x)); x = norm2(x + mlp(x)). Source: transformers `RobertaLayer`."""

    def __init__(self, width: int, num_heads: int, *, rngs: nnx.Rngs):
        self.attn = encoder_block.SelfAttention(width, num_heads, fused=False, rngs=rngs)
        self.norm1 = norm.layer_norm(width, epsilon=_EPSILON, rngs=rngs)
        self.mlp = encoder_block.Mlp(width, encoder_block.MLP_MULT * width, rngs=rngs)
        self.norm2 = norm.layer_norm(width, epsilon=_EPSILON, rngs=rngs)

    def __call__(self, x_BTC: jax.Array, bias_BNTS: jax.Array) -> jax.Array:
        """[B, T, C] -> [B, T, C]."""
        x_BTC = self.norm1(x_BTC + self.attn(x_BTC, bias_BNTS=bias_BNTS))
        return self.norm2(x_BTC + self.mlp(x_BTC))


class Roberta(nnx.Module):
    """The base model with its pooler; sizes for tests."""

    def __init__(
        self,
        *,
        num_layers: int = 12,
        width: int = WIDTH,
        num_heads: int = NUM_HEADS,
        vocabulary: int = VOCABULARY,
        rngs: nnx.Rngs,
    ):
        init = initializers.kernel()
        self.words = nnx.Embed(vocabulary, width, embedding_init=init, rngs=rngs)
        self.positions = nnx.Embed(PLACES, width, embedding_init=init, rngs=rngs)
        self.types = nnx.Embed(1, width, embedding_init=init, rngs=rngs)
        self.norm = norm.layer_norm(width, epsilon=_EPSILON, rngs=rngs)
        self.layers = nnx.List([Layer(width, num_heads, rngs=rngs) for _ in range(num_layers)])
        self.pooler = dense.dense(width, width, rngs=rngs)

    def __call__(self, ids_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
        """One row a text, from its first token.

        Args:
          ids_BT: int [B, T], T <= 512, padded at the end.
          mask_BT: 1 where there is a token, 0 where there is padding.
        Returns:
          float32 [B, C] in (-1, 1).
        """
        # the first token has position 2, padding position 1
        places_BT = jnp.cumsum(mask_BT, axis=1) * mask_BT + PADDING
        x = self.words(ids_BT) + self.positions(places_BT) + self.types(jnp.zeros_like(ids_BT))
        x = self.norm(x)
        bias_BNTS = jnp.where(mask_BT > 0, 0.0, -jnp.inf)[:, None, None]
        for layer in self.layers:
            x = layer(x, bias_BNTS)
        return jnp.tanh(self.pooler(x[:, 0]))
