"""A module split into what is static and what is data, ready for jit."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

from flax import nnx
import jax


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
    def rebuild(
        cls, build: Callable[[], nnx.Module], trainable: Any, params: Mapping, rest: Mapping
    ) -> "Network":
        """What `build` makes with a checkpoint's arrays, without making random weights.

        Args:
          build: makes the module, e.g. `lambda: task.build(nnx.Rngs(0))`; only traced.
          trainable: the nnx filter that divided the arrays: `task.trainable`, or `nnx.Param`.
          params: nested dict of arrays, what `trainable` selects.
          rest: nested dict of all other arrays.
        """
        abstract = nnx.eval_shape(build)
        graphdef, _, _ = nnx.split(abstract, trainable, ...)
        return cls.of(nnx.merge(graphdef, params, rest))

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
