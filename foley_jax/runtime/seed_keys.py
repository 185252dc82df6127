"""Random keys of seeds: the one rule by which all commands come to their noise.

A seed's key is all its 64 bits: `jax.random.key` drops the upper half of them, so that seeds 2**32
apart would be the same. Below 2**32 both agree.
"""

import zlib

import jax
import numpy as np

from foley_jax.runtime import limits

IMPLEMENTATION = "threefry2x32"  # whatever JAX's default is set to: a key is two words


def key(seed: int) -> jax.Array:
    """Returns the key of a seed.

    Raises:
      ValueError: no integer from 0 to 2**64 - 1.
    """
    words = divmod(limits.seed(seed), 2**32)
    return wrapped(np.array(words, np.uint32))


def noise_key(seed: int, name: str, number: int) -> jax.Array:
    """Returns the key that decides the noise of one result, in every command.

    Args:
      seed: as `key`.
      name: of the input without folder and suffix, or of the clip.
      number: of the result among those of one seed and name, from 0.
    """
    named = jax.random.fold_in(key(seed), zlib.crc32(name.encode(errors="surrogatepass")))
    return jax.random.fold_in(named, number)


def block_keys(seed: int, name: str, sample: int, num_blocks: int) -> np.ndarray:
    """Returns raw key data, uint32 [num_blocks, 2], for the noise of every block of columns.

    A column's noise is a function of seed, video name, sample and column only: key k of a split
    does not depend on how many there are.
    """
    key = noise_key(seed, name, sample)
    return np.asarray(jax.random.key_data(jax.random.split(key, num_blocks)))


def wrapped(words: jax.Array | np.ndarray) -> jax.Array:
    """Returns the keys of raw key data, uint32 [..., 2]."""
    return jax.random.wrap_key_data(words, impl=IMPLEMENTATION)
