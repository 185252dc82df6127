"""A random generator for initial weights that compiles fast.

A model draws hundreds of initial arrays, each a program of its own. With jax's threefry (20 rounds
a draw) XLA spends a minute on a CPU core compiling the initialisation of even a small U-Net; this
hash of the element's index takes a tenth of it. Like threefry it is counter-based: the same values
on every device and mesh. It is for weights, not for the noise of diffusion or dropout.
Source: hash constants of Chris Wellons' "lowbias32" (prospecting for hash functions, 2018).
"""

import functools
import math

import jax
from jax.extend import random as jax_random
import jax.numpy as jnp
import numpy as np

from foley_jax.runtime import limits

_GOLDEN = np.uint32(0x9E3779B1)  # 2^32 / golden ratio, odd
_ROOT = (0x243F6A88, 0x85A308D3)  # digits of pi
_NARROW = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}


def _mix(x: jax.Array) -> jax.Array:
    """A bijection of uint32 in which every input bit flips each output bit with chance 1/2."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def _child(key: jax.Array, data: jax.Array) -> jax.Array:
    """Key number `data` below a key: uint32 [2], uint32 [...] -> uint32 [..., 2]."""
    first = _mix(_mix(data * _GOLDEN + key[0]) ^ key[1])
    return jnp.stack([first, _mix(first + key[1] * _GOLDEN + key[0])], axis=-1)


def _seed(seed: jax.Array) -> jax.Array:
    # not zeros, which the hash maps to themselves
    return _child(jnp.array(_ROOT, jnp.uint32), jnp.asarray(seed).astype(jnp.uint32))


def _fold_in(key: jax.Array, data: jax.Array) -> jax.Array:
    return _child(key, data.astype(jnp.uint32))


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    # another stream than that of fold_in
    numbers = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    return _child(key ^ _GOLDEN, numbers)


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    if bit_width not in _NARROW:
        raise ValueError(f"{bit_width} random bits asked for; known: 8, 16, 32")
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):  # no reshape: every device makes its part
        stride = np.uint32(math.prod(shape[axis + 1 :]) % 2**32)
        index = index + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    return _mix(_mix(index * _GOLDEN + key[0]) ^ key[1]).astype(_NARROW[bit_width])


@functools.cache
def _implementation():
    return jax_random.define_prng_impl(
        key_shape=(2,),
        seed=_seed,
        split=_split,
        random_bits=_random_bits,
        fold_in=_fold_in,
        name="index_hash",
        tag="ih",
    )


def key(seed: int) -> jax.Array:
    """A key for `nnx.Rngs` and `jax.random` functions.

    Raises:
      ValueError: the seed is no integer from 0 to 2**64 - 1.
    """
    high, low = divmod(limits.seed(seed), 2**32)
    below = jax.random.key(low, impl=_implementation())  # takes 32 bits
    return jax.random.fold_in(below, high) if high else below
