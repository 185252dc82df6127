"""Embedding of the time between noise (0) and data (1).

B batch, D width.
"""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.layers import dense, initializers

MAX_PERIOD = 10000.0
V1_SINUSOIDS = 256


def frequencies(width: int, scale: float = 1.0) -> np.ndarray:
    """Returns scale x 10000^(-2 i / width) for i < width / 2, rounded as the official table is.

    With a scale of 10000 one unit in the last place of a frequency moves the flow by 1e-4, so the
    steps are those of the official code, each in float32.

    Source: MMAudio mmaudio/model/embeddings.py `TimestepEmbedder`.
    """
    exponent = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    power = np.power(MAX_PERIOD, exponent.astype(np.float64)).astype(np.float32)
    return np.float32(scale) * (np.float32(1.0) / power)


class TimeEmbedding(nnx.Module):
    """Cosines and sines of t f, then two linear layers; in float32 whatever the network's dtype.

    Rounded to bfloat16, frequencies up to 10000 would make noise of the embedding.
    """

    def __init__(self, width: int, *, v2: bool, rngs: nnx.Rngs):
        self.num_sinusoids = width if v2 else V1_SINUSOIDS
        self.scale = MAX_PERIOD if v2 else 1.0
        build = {"kernel_init": initializers.normal(0.02), "rngs": rngs}
        self.first = dense.dense(self.num_sinusoids, width, **build)
        self.second = dense.dense(width, width, **build)

    def __call__(self, t_B: jax.Array) -> jax.Array:
        """Times in [0, 1] -> float32 [B, D]."""
        table = frequencies(self.num_sinusoids, self.scale)
        angle = t_B.astype(jnp.float32)[:, None] * table[None]
        sinusoids = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        return self.second(jax.nn.silu(self.first(sinusoids)))
