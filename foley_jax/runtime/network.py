"""A module split into what is static and what is data, ready for jit."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any
import zlib

from flax import nnx
import jax
from jax.sharding import Mesh
import numpy as np

from foley_jax.runtime import export_cache, init_keys, partition
from foley_jax.runtime import mesh as mesh_lib

# makes a module with initial weights from keys, e.g. `task.build`
Build = Callable[[nnx.Rngs | init_keys.WeightKeys | init_keys.ShapeKeys], nnx.Module]


def shapes(build: Build) -> nnx.Module:
    """Returns what `build` makes, with `jax.ShapeDtypeStruct`s in the place of weights."""
    return nnx.eval_shape(lambda: build(init_keys.ShapeKeys()))


@dataclasses.dataclass(frozen=True)
class Network:
    """A module as a static definition and a nested dict of arrays.

    `mesh`: the devices that its programs run on; None is the default device. `origin`: all that the
    module was built from but its weights, its config for one; where it is known, programs that have
    a name are kept on disk (`export_cache`).
    """

    graphdef: nnx.GraphDef
    state: Mapping[str, Any]
    mesh: Mesh | None = None
    origin: str = ""

    @classmethod
    def of(cls, model: nnx.Module) -> "Network":
        graphdef, state = nnx.split(model)
        return cls(graphdef, nnx.to_pure_dict(state))

    @classmethod
    def rebuild(cls, build: Build, trainable: Any, params: Mapping, rest: Mapping) -> "Network":
        """Returns what `build` makes with a checkpoint's arrays, without making random weights.

        Args:
          build: makes the module; only traced.
          trainable: the nnx filter that divided the arrays: `task.trainable`, or `nnx.Param`.
          params: nested dict of arrays, what `trainable` selects.
          rest: nested dict of all other arrays.
        """
        graphdef, _, _ = nnx.split(shapes(build), trainable, ...)
        return cls.of(nnx.merge(graphdef, params, rest))

    def on(self, mesh: Mesh | None) -> "Network":
        """Returns the same network on several devices, its arrays laid out by `state_shardings`."""
        if mesh is None:
            return self
        state = jax.device_put(self.state, partition.state_shardings(self.state, mesh))
        return dataclasses.replace(self, state=state, mesh=mesh)

    def module(self, state: Mapping[str, Any] | None = None) -> nnx.Module:
        """The module with its own arrays, or (inside jit) with traced ones."""
        return nnx.merge(self.graphdef, self.state if state is None else state)

    def crc32(self) -> int:
        """A checksum of the weights: equal for equal ones."""
        leaves = map(np.ascontiguousarray, jax.tree.leaves(self.state))
        return functools.reduce(lambda digest, leaf: zlib.crc32(leaf, digest), leaves, 0)

    def jit(self, fn: Callable, *, name: str = "", **jit_options) -> Callable:
        """`fn(model, *args)` compiled, with the parameters as an argument of the program.

        `name`: of `fn` and of all that is fixed in it besides the network; none: it is not kept.
        """

        def run(state: Any, *args, **kwargs) -> Any:
            return fn(self.module(state), *args, **kwargs)

        return bound(_compiled(run, name, [self], **jit_options), self.mesh, self.state)


def jit_pair(fn: Callable, first: Network, second: Network | None, *, name: str = "") -> Callable:
    """`fn(model, model or None, *args)` compiled with both networks' parameters as arguments."""

    def run(one: Any, two: Any, *args) -> Any:
        return fn(first.module(one), None if second is None else second.module(two), *args)

    compiled = _compiled(run, name, [first] if second is None else [first, second])
    return bound(compiled, first.mesh, first.state, None if second is None else second.state)


def _compiled(fn: Callable, name: str, networks: Sequence[Network], **jit_options) -> Callable:
    """`fn` jitted; kept on disk if all that it depends on is known and it needs one device."""
    known = all(network.origin and network.mesh is None for network in networks)
    if not (name and known) or jit_options:
        return jax.jit(fn, **jit_options)
    return export_cache.Program(fn, "\n".join([name, *(network.origin for network in networks)]))


def bound(compiled: Callable, mesh: Mesh | None, *states: Any) -> Callable:
    """A program with its first arguments, the parameters, that runs on a mesh if there is one."""
    if mesh is None:
        return functools.partial(compiled, *states)

    def on_devices(*args, **kwargs) -> Any:
        with mesh_lib.use_mesh(mesh):
            return jax.block_until_ready(compiled(*states, *args, **kwargs))

    return on_devices
