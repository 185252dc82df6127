"""Attention written out, for any device: logits, softmax, weighted sum.

B batch, T queries, S keys, N heads, D width of a head.
"""

import jax
import jax.numpy as jnp


def attention(
    q_BTND: jax.Array,
    k_BSND: jax.Array,
    v_BSND: jax.Array,
    bias_BNTS: jax.Array | None = None,
) -> jax.Array:
    """softmax(q k^T / sqrt(D) + bias) v, softmax in float32; see `layers.attention.attention`."""
    scale = q_BTND.shape[-1] ** -0.5
    logits_BNTS = jnp.einsum(
        "btnd,bsnd->bnts", q_BTND * scale, k_BSND, preferred_element_type=jnp.float32
    )
    if bias_BNTS is not None:
        logits_BNTS = logits_BNTS + bias_BNTS.astype(jnp.float32)
    weights_BNTS = jax.nn.softmax(logits_BNTS, axis=-1).astype(v_BSND.dtype)
    return jnp.einsum("bnts,bsnd->btnd", weights_BNTS, v_BSND)
