"""Attention on TPUs whose logits never leave the chip: JAX's own Pallas kernel, where it fits.

B batch, T queries, S keys, N heads, D width of a head.
"""

import functools

import jax

from foley_jax import sharding

LANES = 128
# below, logits are small beside everything else, and XLA's own form is as good
MIN_LOGITS = 2**18


def fits(q_BTND: jax.Array, k_BSND: jax.Array) -> bool:
    """Whether the kernel takes these shapes, and is worth it."""
    (batch, queries, _, width), keys = q_BTND.shape, k_BSND.shape[1]
    if queries % LANES or keys % LANES or queries * keys < MIN_LOGITS:
        return False
    whole = width < LANES or width % LANES == 0
    return whole and batch % sharding.num_devices() == 0


def on_tpu() -> bool:
    """Whether what is traced now is for TPUs: those of the mesh, else of this process."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return jax.default_backend() == "tpu"
    device = mesh.abstract_device
    return device is not None and "tpu" in device.device_kind.lower()


def _blocks(num_queries: int, num_keys: int, width: int) -> dict[str, int]:
    """Sizes of the kernel's tiles; its default, 128, reads keys and values over and over.

    Backwards the keys' tiles stay small: statistics of the rows are written once for each column.
    """
    most = 512 if width <= LANES else 256  # tiles must fit the chip's fast memory together
    sizes = range(LANES, most + 1, LANES)
    q, k = (max(n for n in sizes if count % n == 0) for count in (num_queries, num_keys))
    forward = {"block_q": q, "block_k_major": k, "block_k": k, "block_b": 1}
    keys = {"block_q_major_dkv": q, "block_q_dkv": q}
    keys |= {"block_k_major_dkv": LANES, "block_k_dkv": LANES}
    return {**forward, **keys, "block_q_dq": q, "block_k_major_dq": LANES, "block_k_dq": LANES}


def attention(q_BTND: jax.Array, k_BSND: jax.Array, v_BSND: jax.Array) -> jax.Array:
    """softmax(q k^T / sqrt(D)) v -> [B, T, N, D], softmax in float32.

    Every device of the mesh computes its own examples. The shapes must be such as `fits` takes.
    Source: jax.experimental.pallas.ops.tpu.flash_attention.
    """
    from jax.experimental.pallas.ops.tpu import flash_attention  # needs Mosaic: only if used

    kernel = functools.partial(
        flash_attention.flash_attention,
        sm_scale=q_BTND.shape[-1] ** -0.5,
        block_sizes=flash_attention.BlockSizes(
            **_blocks(q_BTND.shape[1], k_BSND.shape[1], q_BTND.shape[-1])
        ),
    )

    def own(q, k, v):
        heads_first = (x.transpose(0, 2, 1, 3) for x in (q, k, v))  # [B, N, T, D]
        return kernel(*heads_first).transpose(0, 2, 1, 3)

    return sharding.each_its_own(own)(q_BTND, k_BSND, v_BSND)
