"""Attention as CPUs like it; same numbers.

Written out, the logits of a clip's pixels go through memory four times; a head's, of some queries
at a time, stay in the cache. Heads of few tokens go all at once, as a batch that comes first.
B batch, T queries, S keys, N heads, D width of a head, G groups of queries.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

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
    q, k, v = (_heads_first(x) for x in (q_BTND, k_BSND, v_BSND))
    q = q * q.shape[-1] ** -0.5
    if not size:
        return _heads_last(_attend(q, k, v), q_BTND)

    def head(qkv: tuple[jax.Array, ...]) -> jax.Array:
        q_GTD, k_SD, v_SD = qkv
        return lax.map(lambda q_TD: _attend(q_TD, k_SD, v_SD), q_GTD)

    return _heads_last(lax.map(head, (_pieces(q, size), k, v)), q_BTND)


def _heads_first(x_BTND: jax.Array) -> jax.Array:
    """[B, T, N, D] -> [B*N, T, D]."""
    b, t, n, d = x_BTND.shape
    return x_BTND.swapaxes(1, 2).reshape(b * n, t, d)


def _heads_last(y: jax.Array, like_BTND: jax.Array) -> jax.Array:
    """[B*N, T, D], or in pieces [B*N, G, T/G, D] -> [B, T, N, D]."""
    b, t, n, d = like_BTND.shape
    return y.reshape(b, n, t, d).swapaxes(1, 2)


def _pieces(x_HTD: jax.Array, size: int) -> jax.Array:
    """[B*N, T, D] -> [B*N, G, T/G, D]."""
    h, t, d = x_HTD.shape
    return x_HTD.reshape(h, t // size, size, d)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """[..., T, D] attends to [..., S, D]; divides by the weights' sum at the end."""
    logits = jnp.matmul(q, k.swapaxes(-1, -2), preferred_element_type=jnp.float32)
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
    y = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (y / weights.sum(-1, keepdims=True)).astype(v.dtype)


def _forward(q, k, v, size):
    return _by_heads(q, k, v, size), (q, k, v)


def _backward(size, residuals, dy_BTND):
    """The weights again, piece by piece."""
    q_BTND, k_BSND, v_BSND = residuals
    scale = q_BTND.shape[-1] ** -0.5
    q, k, v, dy = (_heads_first(x) for x in (*residuals, dy_BTND))
    q = q * scale
    if size:

        def head(arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            q_GTD, dy_GTD, k_SD, v_SD = arrays

            def piece(sums, q_dy):
                dq_TD, *more = _gradients(*q_dy, k_SD, v_SD)
                return tuple(a + b for a, b in zip(sums, more)), dq_TD

            shapes = (k_SD.shape[::-1], v_SD.shape[::-1])
            zeros = tuple(jnp.zeros(shape, jnp.float32) for shape in shapes)
            sums, dq_GTD = lax.scan(piece, zeros, (q_GTD, dy_GTD))
            return dq_GTD, *sums

        dq, dk, dv = lax.map(head, (_pieces(q, size), _pieces(dy, size), k, v))
    else:
        dq, dk, dv = _gradients(q, dy, k, v)
    pairs = (
        (scale * dq, q_BTND),
        (dk.swapaxes(1, 2), k_BSND),
        (dv.swapaxes(1, 2), v_BSND),
    )
    return tuple(_heads_last(x, like).astype(like.dtype) for x, like in pairs)


def _gradients(
    q: jax.Array, dy: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradients of q, k and v, by that of what [..., T, D] gets from [..., S, D].

    Returns:
      float32 [..., T, D], and those of k and v turned: [..., D, S]. Their products are several
      times slower where S are the rows.
    """
    product = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(product(q, k.swapaxes(-1, -2)))
    dv_DS = product(dy.swapaxes(-1, -2), weights.astype(v.dtype))
    dweights = product(dy, v.swapaxes(-1, -2))
    mean = (weights * dweights).sum(-1, keepdims=True)
    dlogits = (weights * (dweights - mean)).astype(q.dtype)
    return product(dlogits, k), product(q.swapaxes(-1, -2), dlogits), dv_DS


_by_heads.defvjp(_forward, _backward)
