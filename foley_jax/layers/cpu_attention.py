"""Attention as CPUs like it; same numbers.

Written out, the logits of a clip's pixels go through memory four times; a head's, of some queries
at a time, stay in the cache. Heads of few tokens go all at once, as a batch that comes first.
B batch, T queries, S keys, N heads, D width of a head, G groups of queries.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.layers import plain_attention

_LOGITS = 2**17  # of one piece: half a MiB; of pieces from 2**16 to 2**20, the fastest measured
_WORTH_IT = 2**20  # logits of a call; fewer stay in the cache anyway
_HEAD = 2**14  # logits of a head; a loop over smaller ones costs more than it saves


def attention(q_BTND: jax.Array, k_BSND: jax.Array, v_BSND: jax.Array) -> jax.Array:
    """softmax(q k^T / sqrt(D)) v, softmax in float32: [B, T, N, D], dtype of the values.

    Args:
      q_BTND, k_BSND, v_BSND: queries, keys, values, any float dtype.
    """
    b, t, n, _ = q_BTND.shape
    s = k_BSND.shape[1]
    pays = t * s >= _HEAD and b * n * t * s >= _WORTH_IT
    return _by_heads(q_BTND, k_BSND, v_BSND, _piece(t, s) if pays else 0)


def _piece(t: int, s: int) -> int:
    """Queries of a piece: a divisor of T, 16 at least; 0 where there is none."""
    sizes = range(min(t, max(_LOGITS // s, 16)), 15, -1)
    return next((size for size in sizes if t % size == 0), 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _by_heads(q_BTND: jax.Array, k_BSND: jax.Array, v_BSND: jax.Array, size: int) -> jax.Array:
    """All heads side by side, or one after another with `size` queries at a time."""
    b, t, n, d = q_BTND.shape
    # [B, T, N, D] -> [B*N, T, D]
    q, k, v = (x.swapaxes(1, 2).reshape(b * n, -1, d) for x in (q_BTND, k_BSND, v_BSND))
    q = q * d**-0.5
    if size:
        q_HGTD = q.reshape(b * n, t // size, size, d)

        def head(qkv: tuple[jax.Array, ...]) -> jax.Array:
            q_GTD, k_SD, v_SD = qkv
            return lax.map(lambda q_TD: _attend(q_TD, k_SD, v_SD), q_GTD)

        y = lax.map(head, (q_HGTD, k, v))  # [B*N, G, T/G, D]
    else:
        y = _attend(q, k, v)
    return y.reshape(b, n, t, d).swapaxes(1, 2)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """[..., T, D] attends to [..., S, D]; divides by the weights' sum at the end."""
    logits = jnp.matmul(q, k.swapaxes(-1, -2), preferred_element_type=jnp.float32)
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
    y = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (y / weights.sum(-1, keepdims=True)).astype(v.dtype)


def _forward(q, k, v, size):
    return _by_heads(q, k, v, size), (q, k, v)


def _backward(size, residuals, dy):
    """The gradients of what is written out."""
    del size
    return jax.vjp(plain_attention.attention, *residuals)[1](dy)


_by_heads.defvjp(_forward, _backward)
