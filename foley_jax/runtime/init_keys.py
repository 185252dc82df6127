"""Keys of initial weights, given out where nothing but keys is needed of `nnx.Rngs`."""

import functools

import jax


@functools.cache
def no_weights() -> jax.Array:
    """The key of weights whose values nobody will see: initialisers may take any."""
    with jax.ensure_compile_time_eval():  # it outlives the trace that asks for it first
        return jax.random.key(0)


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


class ShapeKeys:
    """Gives `no_weights` again and again, where only the shapes of weights are asked for.

    Tracing what draws them takes half of the time of building a network.
    """

    def __call__(self) -> jax.Array:
        """The key."""
        return no_weights()

    def params(self) -> jax.Array:
        """The key; layers ask for it under this name."""
        return self()
