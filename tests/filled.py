"""Modules filled from NumPy: what a test needs, without compiling every initialiser."""

from collections.abc import Callable
import functools

from flax import nnx
import jax
import numpy as np

# tests compile far longer than they run
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def module(build: Callable[[], nnx.Module], seed: int = 0) -> nnx.Module:
    """What `build` makes, with normal weights / sqrt(fan in): no layer is zero, variances are 1."""
    graphdef, state = nnx.split(nnx.eval_shape(build))
    rng = np.random.default_rng(seed)

    def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if jax.tree_util.keystr(path).endswith("['var']"):
            return jax.numpy.ones(leaf.shape, leaf.dtype)
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        value = rng.standard_normal(leaf.shape) / np.sqrt(fan_in)
        return jax.numpy.asarray(value, leaf.dtype)

    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(fill, nnx.to_pure_dict(state)))
