"""The gated feed-forward of a transformer on TPUs: a Pallas kernel of our own.

Four times the width exists on the chip only: a tile of rows is read, meets all the weights, and
its result is written. The backward pass makes the inner activations again from the input, as
rematerialisation would, and adds up the gradients of the weights on the chip.
R rows, C channels, H hidden width.
"""

import functools
import math

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from foley_jax.kernels import plain
from foley_jax.kernels.tpu.attention import dot
from foley_jax.runtime import partition

MOST_CHANNELS = 640  # weights and their gradients in float32 stay on the chip
TILE_ELEMENTS = 256 * 1280  # of the hidden activations of one tile
VMEM_BYTES = 56 * 2**20


def fits(x: jax.Array, hidden: int) -> bool:
    """Whether the kernel takes [..., C] with this hidden width."""
    devices, channels = partition.num_devices(), x.shape[-1]
    if x.shape[0] % devices or channels > MOST_CHANNELS or hidden > 4 * MOST_CHANNELS:
        return False
    rows = math.prod(x.shape[:-1]) // devices
    return x.dtype == jnp.bfloat16 and rows % _tile(hidden) == 0


def _tile(hidden: int) -> int:
    """Rows of one tile: a power of two, at most 256."""
    return 1 << min(8, (TILE_ELEMENTS // hidden).bit_length() - 1)


def feed_forward(
    x: jax.Array, weights: plain.FeedForwardWeights, *, interpret: bool = False
) -> jax.Array:
    """[..., C] -> [..., C]; inner activations in float32, products in the dtype of `x`.

    Every device of the mesh computes its own examples, which are those of the leading axis; rows
    that do not fill a tile raise ValueError.

    Args:
      weights: in the dtype of `x`.
      interpret: compute what the kernel would, on any device; slow.
    Source: SD attention.FeedForward (GEGLU).
    """
    return _feed_forward(x, weights, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _feed_forward(x, weights, interpret):
    own = functools.partial(_forward, interpret)
    return partition.shard_map_batch(own, whole=1)(x, weights)


def _feed_forward_forward(x, weights, interpret):
    return _feed_forward(x, weights, interpret), (x, weights)


def _feed_forward_backward(interpret, residuals, dy):
    x, weights = residuals
    own = functools.partial(_backward, interpret)
    return partition.shard_map_batch(own, whole=1, sums=True)(x, dy, weights)


_feed_forward.defvjp(_feed_forward_forward, _feed_forward_backward)


def _rows(x: jax.Array, hidden: int) -> tuple[jax.Array, tuple[int], pl.BlockSpec]:
    """[..., C] as rows, the grid over their tiles, and the block of one tile."""
    x_RC = x.reshape(-1, x.shape[-1])
    tile = _tile(hidden)
    if len(x_RC) % tile:
        raise ValueError(f"{len(x_RC)} rows are no multiple of a tile's {tile}; see fits()")
    return x_RC, (len(x_RC) // tile,), pl.BlockSpec((tile, x.shape[-1]), lambda i: (i, 0))


def _as_matrices(weights: plain.FeedForwardWeights) -> list[jax.Array]:
    return [w.reshape(-1, w.shape[-1]) for w in weights]


def _forward(interpret, x, weights):
    x_RC, grid, own = _rows(x, weights.out_HC.shape[0])
    matrices = _as_matrices(weights)
    y_RC = pl.pallas_call(
        _forward_kernel,
        grid=grid,
        in_specs=[own, *(_kept(w) for w in matrices)],
        out_specs=own,
        out_shape=jax.ShapeDtypeStruct(x_RC.shape, x.dtype),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",), vmem_limit_bytes=VMEM_BYTES
        ),
        interpret=interpret,
        name="feed_forward",
    )(x_RC, *matrices)
    return y_RC.reshape(x.shape)


def _kept(matrix: jax.Array) -> pl.BlockSpec:
    """A whole matrix that is read once: the next tile needs no second copy of it."""
    return pl.BlockSpec(matrix.shape, lambda i: (0, 0), pipeline_mode=pl.Buffered(1))


def _backward(interpret, x, dy, weights):
    """(gradient of x, sums over the rows: gradients of the weights)."""
    x_RC, grid, own = _rows(x, weights.out_HC.shape[0])
    matrices = _as_matrices(weights)
    sums = [jax.ShapeDtypeStruct(w.shape, jnp.float32) for w in matrices]
    dx_RC, *dweights = pl.pallas_call(
        _backward_kernel,
        grid=grid,
        in_specs=[own, own, *(_kept(w) for w in matrices[:-1])],
        out_specs=[own, *(pl.BlockSpec(w.shape, lambda i: (0, 0)) for w in matrices)],
        out_shape=[jax.ShapeDtypeStruct(x_RC.shape, x.dtype), *sums],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary",), vmem_limit_bytes=VMEM_BYTES
        ),
        interpret=interpret,
        name="feed_forward_backward",
    )(x_RC, dy.reshape(x_RC.shape), *matrices[:-1])
    shaped = (d.reshape(w.shape).astype(w.dtype) for d, w in zip(dweights, weights, strict=True))
    return dx_RC.reshape(x.shape), plain.FeedForwardWeights(*shaped)


def _inner(x_RC, value_ref, value_bias_ref, gate_ref, gate_bias_ref):
    """Value, gate, and the normal distribution function of the gate: float32 [R, H] each."""
    value_RH = dot(x_RC, value_ref[...], 1, 0) + value_bias_ref[...].astype(jnp.float32)
    gate_RH = dot(x_RC, gate_ref[...], 1, 0) + gate_bias_ref[...].astype(jnp.float32)
    return value_RH, gate_RH, 0.5 * (1.0 + jax.lax.erf(gate_RH * 0.5**0.5))


def _forward_kernel(x_ref, *refs):
    *inner_refs, out_ref, out_bias_ref, y_ref = refs
    x_RC = x_ref[...]
    value_RH, gate_RH, cdf_RH = _inner(x_RC, *inner_refs)
    product_RH = (value_RH * gate_RH * cdf_RH).astype(x_RC.dtype)
    y_RC = dot(product_RH, out_ref[...], 1, 0) + out_bias_ref[...].astype(jnp.float32)
    y_ref[...] = y_RC.astype(y_ref.dtype)


def _backward_kernel(x_ref, dy_ref, *refs):
    value_ref, value_bias_ref, gate_ref, gate_bias_ref, out_ref, dx_ref, *sums = refs
    dvalue_ref, dvalue_bias_ref, dgate_ref, dgate_bias_ref, dout_ref, dout_bias_ref = sums

    @pl.when(pl.program_id(0) == 0)
    def _():
        for ref in sums:
            ref[...] = jnp.zeros_like(ref)

    x_RC, dy_RC = x_ref[...], dy_ref[...]
    inner_refs = (value_ref, value_bias_ref, gate_ref, gate_bias_ref)
    value_RH, gate_RH, cdf_RH = _inner(x_RC, *inner_refs)
    gelu_RH = gate_RH * cdf_RH
    dout_ref[...] += dot((value_RH * gelu_RH).astype(x_RC.dtype), dy_RC, 0, 0)
    dout_bias_ref[...] += dy_RC.astype(jnp.float32).sum(axis=0, keepdims=True)
    dproduct_RH = dot(dy_RC, out_ref[...], 1, 1)
    density_RH = jnp.exp(-0.5 * gate_RH**2) * (2.0 * math.pi) ** -0.5
    dvalue_RH = dproduct_RH * gelu_RH
    dgate_RH = dproduct_RH * value_RH * (cdf_RH + gate_RH * density_RH)
    dvalue_bias_ref[...] += dvalue_RH.sum(axis=0, keepdims=True)
    dgate_bias_ref[...] += dgate_RH.sum(axis=0, keepdims=True)
    dvalue_RH, dgate_RH = dvalue_RH.astype(x_RC.dtype), dgate_RH.astype(x_RC.dtype)
    dx_RC = dot(dvalue_RH, value_ref[...], 1, 1) + dot(dgate_RH, gate_ref[...], 1, 1)
    dx_ref[...] = dx_RC.astype(dx_ref.dtype)
    dvalue_ref[...] += dot(x_RC, dvalue_RH, 0, 0)
    dgate_ref[...] += dot(x_RC, dgate_RH, 0, 0)
