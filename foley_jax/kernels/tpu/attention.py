"""Attention on TPUs over places that fit on the chip: a Pallas kernel of our own.

What it reads are queries, keys and values as the dense layers make them, all heads side by side
in the last axis, and what it writes is the result alone: no logits, no statistics for the backward
pass, no transposed or padded copies. A tile of queries meets all keys at once, so softmax needs no
second look, and the backward pass makes it again from the logits.
B batch, T queries, S keys, N heads, D width of a head, C = N D channels.
"""

import functools

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from foley_jax.runtime import partition

LANES = 128
MOST_TILE = 256  # queries of one tile
MOST_KEYS = 2**19  # times channels: keys, values and their gradients stay on the chip
VMEM_BYTES = 32 * 2**20


def fits(q_BTND: jax.Array, k_BSND: jax.Array) -> bool:
    """Whether the kernel takes these shapes, and saves anything: logits larger than the result."""
    (batch, queries, heads, width), keys = q_BTND.shape, k_BSND.shape[1]
    if queries % LANES or keys % LANES or batch % partition.num_devices():
        return False
    return 2 * width < keys and keys * heads * width <= MOST_KEYS


def attention(
    q_BTND: jax.Array, k_BSND: jax.Array, v_BSND: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """softmax(q k^T / sqrt(D)) v -> [B, T, N, D], softmax in float32.

    Every device of the mesh computes its own examples. The shapes must be such as `fits` takes.

    Args:
      interpret: compute what the kernel would, on any device; slow.
    """
    heads = q_BTND.shape[2]
    merged = (x.reshape(*x.shape[:2], -1) for x in (q_BTND, k_BSND, v_BSND))
    return _attention(*merged, heads, interpret).reshape(q_BTND.shape).astype(v_BSND.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _attention(q_BTC, k_BSC, v_BSC, heads, interpret):
    return partition.shard_map_batch(functools.partial(_forward, heads, interpret))(
        q_BTC, k_BSC, v_BSC
    )


def _attention_forward(q_BTC, k_BSC, v_BSC, heads, interpret):
    return _attention(q_BTC, k_BSC, v_BSC, heads, interpret), (q_BTC, k_BSC, v_BSC)


def _attention_backward(heads, interpret, residuals, dy_BTC):
    backward = functools.partial(_backward, heads, interpret)
    return tuple(partition.shard_map_batch(backward)(*residuals, dy_BTC))


_attention.defvjp(_attention_forward, _attention_backward)


def _blocks(q_BTC: jax.Array, k_BSC: jax.Array) -> tuple[tuple[int, int], pl.BlockSpec, ...]:
    """The grid, the block of a tile of queries, and that of all keys of one example."""
    (batch, queries, channels), keys = q_BTC.shape, k_BSC.shape[1]
    tile = next(n for n in (MOST_TILE, LANES) if queries % n == 0)
    own = pl.BlockSpec((1, tile, channels), lambda b, i: (b, i, 0))
    whole = pl.BlockSpec((1, keys, channels), lambda b, i: (b, 0, 0))
    return (batch, queries // tile), own, whole


def _forward(heads, interpret, q_BTC, k_BSC, v_BSC):
    grid, own, whole = _blocks(q_BTC, k_BSC)
    return pl.pallas_call(
        functools.partial(_forward_kernel, heads),
        grid=grid,
        in_specs=[own, whole, whole],
        out_specs=own,
        out_shape=jax.ShapeDtypeStruct(q_BTC.shape, q_BTC.dtype),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=VMEM_BYTES
        ),
        interpret=interpret,
        name="attention",
    )(q_BTC, k_BSC, v_BSC)


def _backward(heads, interpret, q_BTC, k_BSC, v_BSC, dy_BTC):
    grid, own, whole = _blocks(q_BTC, k_BSC)
    keys, channels = k_BSC.shape[1:]
    return pl.pallas_call(
        functools.partial(_backward_kernel, heads),
        grid=grid,
        in_specs=[own, whole, whole, own],
        out_specs=[own, whole, whole],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q_BTC, k_BSC, v_BSC)],
        scratch_shapes=[pltpu.VMEM((keys, channels), jnp.float32)] * 2,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=VMEM_BYTES
        ),
        interpret=interpret,
        name="attention_backward",
    )(q_BTC, k_BSC, v_BSC, dy_BTC)


def dot(a: jax.Array, b: jax.Array, over_a: int, over_b: int) -> jax.Array:
    """Product of two matrices over one axis of each, in float32; within a kernel."""
    axes = (((over_a,), (over_b,)), ((), ()))
    return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def _heads(count: int, channels: int) -> list[slice]:
    width = channels // count
    return [slice(i * width, (i + 1) * width) for i in range(count)]


def _exponentials(q_TD: jax.Array, k_SD: jax.Array) -> jax.Array:
    """Softmax of the logits [T, S], not yet divided by its sum."""
    logits_TS = dot(q_TD, k_SD, 1, 1) * q_TD.shape[1] ** -0.5
    return jnp.exp(logits_TS - logits_TS.max(axis=1, keepdims=True))


def _forward_kernel(heads, q_ref, k_ref, v_ref, y_ref):
    for own in _heads(heads, q_ref.shape[2]):
        q_TD, k_SD, v_SD = (ref[0, :, own] for ref in (q_ref, k_ref, v_ref))
        p_TS = _exponentials(q_TD, k_SD)
        y_TD = dot(p_TS.astype(v_SD.dtype), v_SD, 1, 0) / p_TS.sum(axis=1, keepdims=True)
        y_ref[0, :, own] = y_TD.astype(y_ref.dtype)


def _backward_kernel(
    heads, q_ref, k_ref, v_ref, dy_ref, dq_ref, dk_ref, dv_ref, dk_sum_ref, dv_sum_ref
):
    """Gradients of one tile of queries; those of the keys add up over the tiles of an example."""

    @pl.when(pl.program_id(1) == 0)
    def _():
        dk_sum_ref[...] = jnp.zeros_like(dk_sum_ref)
        dv_sum_ref[...] = jnp.zeros_like(dv_sum_ref)

    for own in _heads(heads, q_ref.shape[2]):
        q_TD, k_SD, v_SD, dy_TD = (ref[0, :, own] for ref in (q_ref, k_ref, v_ref, dy_ref))
        p_TS = _exponentials(q_TD, k_SD)
        p_TS = p_TS / p_TS.sum(axis=1, keepdims=True)
        dv_sum_ref[:, own] += dot(p_TS.astype(dy_TD.dtype), dy_TD, 0, 0)
        dp_TS = dot(dy_TD, v_SD, 1, 1)
        dlogits_TS = p_TS * (dp_TS - (p_TS * dp_TS).sum(axis=1, keepdims=True))
        dlogits_TS = (dlogits_TS * q_TD.shape[1] ** -0.5).astype(q_TD.dtype)
        dq_ref[0, :, own] = dot(dlogits_TS, k_SD, 1, 0).astype(dq_ref.dtype)
        dk_sum_ref[:, own] += dot(dlogits_TS, q_TD, 0, 0)

    @pl.when(pl.program_id(1) == pl.num_programs(1) - 1)
    def _():
        dk_ref[0] = dk_sum_ref[...].astype(dk_ref.dtype)
        dv_ref[0] = dv_sum_ref[...].astype(dv_ref.dtype)
