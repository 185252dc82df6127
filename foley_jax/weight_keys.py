"""Keys of initial weights, given out where nothing but keys is needed of `nnx.Rngs`."""

import jax


class WeightKeys:
    """Gives the keys that `nnx.Rngs(key)` gives, in the same order, by a counter in Python.

    `nnx.Rngs` counts in an array. While a network is traced, for its shapes or to be compiled, each
    step of that counter asks a traced array for its sharding, and JAX reads the whole trace to say
    why there is none: 9 s for the networks of Stable Diffusion's size, which take 0.7 s with this.
    """

    def __init__(self, key: jax.Array | int):
        self._key = jax.random.key(key) if isinstance(key, int) else key
        self._count = 0

    def __call__(self) -> jax.Array:
        """The next key."""
        self._count += 1
        return jax.random.fold_in(self._key, self._count - 1)

    def params(self) -> jax.Array:
        """The next key; layers ask for it under this name."""
        return self()
