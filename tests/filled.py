"""Modules filled from NumPy: what a test needs, without compiling every initialiser."""

from collections.abc import Callable
import functools
import pathlib

from flax import nnx
import jax
import ml_collections
import numpy as np

from foley_jax.runtime import network as network_lib
from foley_jax.training import task as task_lib
from foley_jax.training.checkpointing import run_directory

# tests compile far longer than they run
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
# as programs are compiled outside of tests, for the few whose order of sums is looked at
optimised_jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True},
)


def module(build: network_lib.Build, seed: int = 0) -> nnx.Module:
    """Returns what `build` makes, with normal weights / sqrt(fan in).

    No layer is zero, variances are 1.
    """
    graphdef, state = nnx.split(network_lib.shapes(build))
    rng = np.random.default_rng(seed)

    def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if jax.tree_util.keystr(path).endswith("['var']"):
            return jax.numpy.ones(leaf.shape, leaf.dtype)
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        value = rng.standard_normal(leaf.shape) / np.sqrt(fan_in)
        return jax.numpy.asarray(value, leaf.dtype)

    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(fill, nnx.to_pure_dict(state)))


def model(config: ml_collections.ConfigDict) -> nnx.Module:
    """The model of a config's task, filled."""
    return module(task_lib.resolve(config).build)


def save_run(
    folder: pathlib.Path,
    config: ml_collections.ConfigDict,
    make: Callable[[ml_collections.ConfigDict], nnx.Module] = model,
) -> pathlib.Path:
    """Writes `make(config)` into a folder as training would; returns the folder."""
    _, params, rest = nnx.split(make(config), task_lib.resolve(config).trainable, ...)
    run_directory.save_model(
        folder,
        config=config.to_dict(),
        params=nnx.to_pure_dict(params),
        rest=nnx.to_pure_dict(rest),
    )
    return folder


def shown(task: task_lib.Task, module: nnx.Module, batch: task_lib.Batch, rows: int) -> dict:
    """Returns what a task shows of the first `rows` examples of a batch, as in training."""
    graphdef, state = nnx.split(module)
    state = nnx.to_pure_dict(state)

    def model_fn(fn: Callable, batch: task_lib.Batch):
        def program(state, batch):
            result = fn(nnx.merge(graphdef, state), batch)
            return jax.tree.map(lambda x: x[:rows], result)

        return jit(program)(state, batch)

    return dict(task.show(model_fn, batch))
