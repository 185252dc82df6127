"""Modules filled from NumPy: what a test needs, without compiling every initialiser."""

from collections.abc import Callable
import functools

from flax import nnx
import jax
import numpy as np

# tests compile far longer than they run
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def module(build: Callable[[], nnx.Module], seed: int = 0) -> nnx.Module:
    """What `build` makes, with normal weights / sqrt(fan in): no layer is zero."""
    graphdef, state = nnx.split(nnx.eval_shape(build))
    rng = np.random.default_rng(seed)

    def fill(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        value = rng.standard_normal(leaf.shape) / np.sqrt(fan_in)
        return jax.numpy.asarray(value, leaf.dtype)

    return nnx.merge(graphdef, jax.tree.map(fill, nnx.to_pure_dict(state)))
