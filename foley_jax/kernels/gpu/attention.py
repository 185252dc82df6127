"""Attention on NVIDIA GPUs whose logits never reach memory: cuDNN's, where it fits.

B batch, T queries, S keys, N heads, D width of a head.
"""

import functools
import importlib.util

import jax
import jax.numpy as jnp

from foley_jax.runtime import partition

HALF = (jnp.bfloat16, jnp.float16)
MAX_WIDTH = 128  # Hopper takes 256, which shows only where one is
MIN_QUERIES = 64  # its tiles are of 64 or 128: of fewer most would be empty
MAX_EXAMPLES = 65535  # of one head: the limit of a launch's second and third axes


@functools.cache
def installed() -> bool:
    """Whether cuDNN is: JAX asks for its version where attention is traced."""
    if jax.default_backend() == "gpu":
        return True
    try:
        return importlib.util.find_spec("nvidia.cudnn") is not None
    except ModuleNotFoundError:
        return False


def fits(q_BTND: jax.Array, k_BSND: jax.Array) -> bool:
    """Whether cuDNN takes these arguments, and is there."""
    batch, queries, heads, width = q_BTND.shape
    if q_BTND.dtype not in HALF or k_BSND.dtype != q_BTND.dtype:
        return False
    if width % 8 or width > MAX_WIDTH or batch % partition.num_devices():
        return False
    if queries < MIN_QUERIES or batch * heads // partition.num_devices() > MAX_EXAMPLES:
        return False
    return installed()


def attention(
    q_BTND: jax.Array, k_BSND: jax.Array, v_BSND: jax.Array, bias_BNTS: jax.Array | None = None
) -> jax.Array:
    """softmax(q k^T / sqrt(D) + bias) v -> [B, T, N, D], softmax in float32.

    Every device of the mesh computes its own examples; with a bias, JAX divides the work, and
    gradients need even lengths. The arguments must be such as `fits` takes.
    """
    if bias_BNTS is not None:
        return _cudnn(q_BTND, k_BSND, v_BSND, bias=bias_BNTS)
    is_odd = q_BTND.shape[1] % 2 or k_BSND.shape[1] % 2
    return partition.shard_map_batch(_odd if is_odd else _cudnn)(q_BTND, k_BSND, v_BSND)


_cudnn = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")


@jax.custom_vjp
def _odd(q_BTND: jax.Array, k_BSND: jax.Array, v_BSND: jax.Array) -> jax.Array:
    """For odd lengths, which JAX lets have no gradients: then each has one entry more, masked."""
    return _cudnn(q_BTND, k_BSND, v_BSND)


def _evened(q_BTND: jax.Array, k_BSND: jax.Array, v_BSND: jax.Array) -> jax.Array:
    batch, queries, keys = *q_BTND.shape[:2], k_BSND.shape[1]
    more = [
        jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q_BTND, k_BSND, v_BSND)
    ]
    out = _cudnn(
        *more,
        query_seq_lengths=jnp.full((batch,), queries, jnp.int32),
        key_value_seq_lengths=jnp.full((batch,), keys, jnp.int32),
    )
    return out[:, :queries]


_odd.defvjp(lambda *qkv: jax.vjp(_evened, *qkv), lambda vjp, out_BTND: vjp(out_BTND))
