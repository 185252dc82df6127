"""Attention in pieces that stay in a CPU's cache; the same function as `attention.attention`.

Written out, the logits of a clip's pixels go through memory four times; a head's, of some queries
at a time, do not. On other platforms, and where a batch is split over devices, nothing changes.
B batch, T queries, S keys, N heads, D width of a head, G groups of queries.
"""

import jax
from jax import lax
import jax.numpy as jnp

from foley_jax import sharding
from foley_jax.layers import attention as attention_lib

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
    if not pays or not _on_one_cpu() or not _piece(t, s):
        return attention_lib.attention(q_BTND, k_BSND, v_BSND)
    return _in_pieces(q_BTND, k_BSND, v_BSND)


def _on_one_cpu() -> bool:
    """Whether what is traced now is for a CPU, and not to be split."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return jax.default_backend() == "cpu"
    device = mesh.abstract_device
    return sharding.num_devices() == 1 and device is not None and device.device_kind == "cpu"


def _piece(t: int, s: int) -> int:
    """Queries of a piece: a divisor of T, 16 at least; 0 where there is none."""
    sizes = range(min(t, max(_LOGITS // s, 16)), 15, -1)
    return next((size for size in sizes if t % size == 0), 0)


@jax.custom_vjp
def _in_pieces(q_BTND: jax.Array, k_BSND: jax.Array, v_BSND: jax.Array) -> jax.Array:
    b, t, n, d = q_BTND.shape
    size = _piece(t, k_BSND.shape[1])
    # [B, T, N, D] -> [B*N, T, D]
    q, k, v = (x.swapaxes(1, 2).reshape(b * n, -1, d) for x in (q_BTND, k_BSND, v_BSND))
    q_HGTD = (q * d**-0.5).reshape(b * n, t // size, size, d)

    def head(qkv):
        q_GTD, k_SD, v_SD = qkv

        def piece(q_TD: jax.Array) -> jax.Array:
            logits_TS = jnp.matmul(q_TD, k_SD.T, preferred_element_type=jnp.float32)
            weights_TS = jnp.exp(logits_TS - logits_TS.max(-1, keepdims=True))
            y_TD = jnp.matmul(weights_TS.astype(v_SD.dtype), v_SD)
            return (y_TD / weights_TS.sum(-1, keepdims=True)).astype(v_SD.dtype)

        return lax.map(piece, q_GTD)

    y = lax.map(head, (q_HGTD, k, v))  # [B*N, G, T/G, D]
    return y.reshape(b, n, t, d).swapaxes(1, 2)


def _forward(q, k, v):
    return _in_pieces(q, k, v), (q, k, v)


def _backward(residuals, dy):
    """The gradients of what is written out."""
    return jax.vjp(attention_lib.attention, *residuals)[1](dy)


_in_pieces.defvjp(_forward, _backward)
