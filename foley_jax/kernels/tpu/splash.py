"""Attention on TPUs whose logits never leave the chip: JAX's own Pallas kernel, where it fits.

B batch, T queries, S keys, N heads, D width of a head.
"""

import jax

from foley_jax.runtime import partition

LANES = 128
# below, logits are small beside everything else, and XLA's own form is as good
MIN_LOGITS = 2**18


def fits(q_BTND: jax.Array, k_BSND: jax.Array) -> bool:
    """Whether the kernel takes these shapes, and is worth it."""
    (batch, queries, _, width), keys = q_BTND.shape, k_BSND.shape[1]
    if queries % LANES or keys % LANES or queries * keys < MIN_LOGITS:
        return False
    whole = width < LANES or width % LANES == 0
    return whole and batch % partition.num_devices() == 0


def attention(
    q_BTND: jax.Array, k_BSND: jax.Array, v_BSND: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """softmax(q k^T / sqrt(D)) v -> [B, T, N, D], softmax in float32.

    Every device of the mesh computes its own examples. The shapes must be such as `fits` takes.

    Args:
      interpret: compute what the kernel would, on any device; slow.
    Source: jax.experimental.pallas.ops.tpu.splash_attention.
    """
    # needs Mosaic: imported only where it is used
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    (_, queries, heads, width), keys = q_BTND.shape, k_BSND.shape[1]
    q, k = _tile(queries, width), _tile(keys, width)
    tiles = splash.BlockSizes(
        block_q=q,
        block_kv=k,
        block_kv_compute=k,
        block_q_dkv=q,
        block_kv_dkv=k,
        block_kv_dkv_compute=k,
        use_fused_bwd_kernel=True,
    )
    everything = splash.MultiHeadMask([splash.FullMask((queries, keys))] * heads)
    kernel = splash.make_splash_mha(
        everything, block_sizes=tiles, head_shards=1, q_seq_shards=1, interpret=interpret
    )

    def own(q, k, v):
        q, k, v = (x.transpose(0, 2, 1, 3) for x in (q * width**-0.5, k, v))  # [B, N, T, D]
        return jax.vmap(kernel)(q, k, v).transpose(0, 2, 1, 3).astype(v.dtype)

    return partition.shard_map_batch(own)(q_BTND, k_BSND, v_BSND)


def _tile(length: int, width: int) -> int:
    """Places of one tile, of which the chip's fast memory must hold several."""
    most = 512 if width <= LANES else 256
    return max(n for n in range(LANES, most + 1, LANES) if length % n == 0)
