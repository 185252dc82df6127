"""A module split into what is static and what is data, ready for jit."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

from flax import nnx
import jax

from foley_jax.training import task as task_lib


@dataclasses.dataclass(frozen=True)
class Network:
    """A module as a static definition and a nested dict of arrays."""

    graphdef: nnx.GraphDef
    state: Mapping[str, Any]

    @classmethod
    def of(cls, model: nnx.Module) -> "Network":
        graphdef, state = nnx.split(model)
        return cls(graphdef, nnx.to_pure_dict(state))

    @classmethod
    def restore(cls, task: task_lib.Task, params: Mapping, rest: Mapping) -> "Network":
        """The task's model with a checkpoint's arrays, without making random weights."""
        abstract = nnx.eval_shape(lambda: task.build(nnx.Rngs(0)))
        graphdef, _, _ = nnx.split(abstract, task.trainable, ...)
        model = nnx.merge(graphdef, params, rest)
        return cls.of(model)

    def module(self, state: Mapping[str, Any] | None = None) -> nnx.Module:
        """The module with its own arrays, or (inside jit) with traced ones."""
        return nnx.merge(self.graphdef, self.state if state is None else state)

    def jit(self, fn: Callable, **jit_options) -> Callable:
        """`fn(model, *args)` compiled, with the parameters as an argument of the program."""
        compiled = jax.jit(
            lambda state, *args, **kwargs: fn(self.module(state), *args, **kwargs), **jit_options
        )
        return functools.partial(compiled, self.state)


def jit_pair(fn: Callable, first: Network, second: Network | None) -> Callable:
    """`fn(model, model or None, *args)` compiled with both networks' parameters as arguments."""
    compiled = jax.jit(
        lambda one, two, *args: fn(
            first.module(one), None if second is None else second.module(two), *args
        )
    )
    return functools.partial(compiled, first.state, None if second is None else second.state)
