"""Checksums of arrays that do not depend on how an array is split over devices."""

from collections.abc import Mapping
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

_STRIDE = np.uint32(0x9E3779B1)
_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def weighted_sum(x: jax.Array) -> jax.Array:
    """sum_i w_i * bits(x_i) mod 2^32 with odd weights w_i, uint32.

    An odd weight has an inverse mod 2^32, so a change of any one element changes the sum. Integer
    addition has no rounding: the sum is the same on every mesh.
    """
    if x.dtype == jnp.bool_:
        bits = x.astype(jnp.uint32)
    else:
        bits = jax.lax.bitcast_convert_type(x, _UNSIGNED[x.dtype.itemsize]).astype(jnp.uint32)
    index = jnp.zeros(x.shape, jnp.uint32)
    for axis in range(x.ndim):  # the flat index, without a reshape that would gather shards
        stride = np.uint32(math.prod(x.shape[axis + 1 :]) % 2**32)
        index = index + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * stride
    return jnp.sum(bits * (index * _STRIDE | np.uint32(1)), dtype=jnp.uint32)


def _weighted_sum_on_host(x: np.ndarray) -> np.uint32:
    """`weighted_sum` without compiling a program for every shape."""
    if x.dtype == np.bool_:
        bits = np.ravel(x).astype(np.uint32)
    else:
        bits = np.ravel(x).view(f"u{x.dtype.itemsize}").astype(np.uint32)
    index = np.arange(bits.size, dtype=np.uint32)  # both wrap at 2^32
    return (bits * (index * _STRIDE | np.uint32(1))).sum(dtype=np.uint32)


def _lies_on_host(x: jax.Array) -> bool:
    return x.is_fully_addressable and all(d.platform == "cpu" for d in x.sharding.device_set)


@functools.cache
def _compiled(sharding: jax.sharding.Sharding | None):
    return jax.jit(weighted_sum, out_shardings=sharding)


def of_leaves(leaves: Mapping[str, jax.Array]) -> dict[str, int]:
    """Checksum of every array, as a Python int in [0, 2^32).

    On several processes all must call it with the same leaves in the same order.
    """
    sums = {}
    for key, x in leaves.items():
        if _lies_on_host(x):
            sums[key] = _weighted_sum_on_host(np.asarray(x))
            continue
        mesh = getattr(x.sharding, "mesh", None)
        whole = jax.NamedSharding(mesh, jax.P()) if mesh is not None else None
        sums[key] = _compiled(whole)(x)
    return {key: int(value) for key, value in jax.device_get(sums).items()}
