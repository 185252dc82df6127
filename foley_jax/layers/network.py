"""A module split into what is static and what is data, ready for jit."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
from jax.sharding import Mesh

from foley_jax import sharding, weight_keys

# makes a module with initial weights from keys, e.g. `task.build`
Build = Callable[[nnx.Rngs | weight_keys.WeightKeys], nnx.Module]


def shapes(build: Build) -> nnx.Module:
    """What `build` makes, with `jax.ShapeDtypeStruct`s in the place of weights."""
    return nnx.eval_shape(lambda: build(weight_keys.WeightKeys(0)))


@dataclasses.dataclass(frozen=True)
class Network:
    """A module as a static definition and a nested dict of arrays.

    `mesh`: the devices that its programs run on; None is the default device.
    """

    graphdef: nnx.GraphDef
    state: Mapping[str, Any]
    mesh: Mesh | None = None

    @classmethod
    def of(cls, model: nnx.Module) -> "Network":
        graphdef, state = nnx.split(model)
        return cls(graphdef, nnx.to_pure_dict(state))

    @classmethod
    def rebuild(cls, build: Build, trainable: Any, params: Mapping, rest: Mapping) -> "Network":
        """What `build` makes with a checkpoint's arrays, without making random weights.

        Args:
          build: makes the module; only traced.
          trainable: the nnx filter that divided the arrays: `task.trainable`, or `nnx.Param`.
          params: nested dict of arrays, what `trainable` selects.
          rest: nested dict of all other arrays.
        """
        graphdef, _, _ = nnx.split(shapes(build), trainable, ...)
        return cls.of(nnx.merge(graphdef, params, rest))

    def on(self, mesh: Mesh | None) -> "Network":
        """The same network on several devices, its arrays laid out by `state_shardings`."""
        if mesh is None:
            return self
        state = jax.device_put(self.state, sharding.state_shardings(self.state, mesh))
        return dataclasses.replace(self, state=state, mesh=mesh)

    def module(self, state: Mapping[str, Any] | None = None) -> nnx.Module:
        """The module with its own arrays, or (inside jit) with traced ones."""
        return nnx.merge(self.graphdef, self.state if state is None else state)

    def jit(self, fn: Callable, **jit_options) -> Callable:
        """`fn(model, *args)` compiled, with the parameters as an argument of the program."""
        compiled = jax.jit(
            lambda state, *args, **kwargs: fn(self.module(state), *args, **kwargs), **jit_options
        )
        return bound(compiled, self.mesh, self.state)


def jit_pair(fn: Callable, first: Network, second: Network | None) -> Callable:
    """`fn(model, model or None, *args)` compiled with both networks' parameters as arguments."""
    compiled = jax.jit(
        lambda one, two, *args: fn(
            first.module(one), None if second is None else second.module(two), *args
        )
    )
    return bound(compiled, first.mesh, first.state, None if second is None else second.state)


def bound(compiled: Callable, mesh: Mesh | None, *states: Any) -> Callable:
    """A program with its first arguments, the parameters, that runs on a mesh if there is one."""
    if mesh is None:
        return functools.partial(compiled, *states)

    def on_devices(*args, **kwargs) -> Any:
        with sharding.running(mesh):
            return jax.block_until_ready(compiled(*states, *args, **kwargs))

    return on_devices
