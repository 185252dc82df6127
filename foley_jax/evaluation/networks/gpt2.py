"""GPT-2, the text half of MS-CLAP: a pre-norm transformer that looks back only.

B batch, T tokens, C channels.
Source: Radford et al. 2019; transformers `GPT2Model`.
"""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.layers import encoder_block, initializers, norm

WIDTH, NUM_HEADS = 768, 12
VOCABULARY, PLACES = 50257, 1024
END = 50256  # id of the token <|endoftext|>
_EPSILON = 1e-5  # of all layer norms


class Gpt2(nnx.Module):
    """The smallest model, without its language head; sizes for tests."""

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
        block = {"epsilon": _EPSILON, "gelu_form": "tanh", "rngs": rngs}
        self.layers = nnx.List(
            [encoder_block.EncoderBlock(width, num_heads, **block) for _ in range(num_layers)]
        )
        self.norm = norm.layer_norm(width, epsilon=_EPSILON, rngs=rngs)

    def __call__(self, ids_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
        """The last hidden state of every token.

        Args:
          ids_BT: int [B, T], T <= 1024, padded at the end.
          mask_BT: 1 where there is a token, 0 where there is padding.
        Returns:
          float32 [B, T, C].
        Raises:
          ValueError: more tokens than positions.
        """
        t = ids_BT.shape[1]
        if t > PLACES:
            raise ValueError(f"a text of {t} tokens, GPT-2 has {PLACES} positions")
        x = self.words(ids_BT) + self.positions(jnp.arange(t)[None])
        seen = jnp.asarray(np.tri(t, dtype=bool))[None] & (mask_BT[:, None] > 0)  # [B, T, S]
        bias_BNTS = jnp.where(seen, 0.0, -jnp.inf)[:, None]
        for layer in self.layers:
            x = layer(x, bias_BNTS=bias_BNTS)
        return self.norm(x)
