"""Whole training steps, as `foley_jax.main` runs them, on one device and one batch."""

from collections.abc import Mapping
import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from foley_jax.bench import case, weights
from foley_jax.runtime import distributed
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.training import loop
from foley_jax.training import state as state_lib
from foley_jax.training import task as task_lib


def plain(config: ml_collections.ConfigDict, ask: case.Ask) -> ml_collections.ConfigDict:
    """A config without what peers do not do: averaged weights, parts of a batch, several devices.

    Nothing is computed twice to save memory, so that FLOPs mean the same on both sides.
    """
    config.dtype = ask.dtype
    config.ema_decay = 0.0
    config.power_ema.sigmas = ()
    config.accumulate = 1
    config.mesh.fsdp = 1
    return config


class Step:
    """A training step with its state.

    Attributes:
      task, config: of the stage.
      params, rest: nested dicts, until `program` is called for the first time.
      program: the step; its output is (state, metrics).
    """

    def __init__(self, config: ml_collections.ConfigDict, batch: Mapping[str, np.ndarray]):
        self.config, self.task = config, task_lib.resolve(config)
        mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
        with jax.set_mesh(mesh):
            maker = loop.maker_of(self.task, config, mesh)
            step = loop.step_of(self.task, config, maker, mesh)
            self.params, self.rest = (
                weights.filled(tree) for tree in (maker.abstract.params, maker.abstract.rest)
            )
            state = state_lib.TrainState(
                step=jnp.zeros((), jnp.int32),
                params=self.params,
                rest=self.rest,
                opt_state=maker.optimizer.init(self.params),
                ema=None,
            )
            state = jax.device_put(state, maker.shardings)
            batch = distributed.global_batch(dict(batch), mesh)
        self.program = case.Program(
            step, (state, batch), mesh=mesh, next_args=lambda args, output: (output[0], args[1])
        )

    def whole_state(self) -> dict[str, Any]:
        """Parameters and the rest as one nested dict; copies, since a step gives its own away."""
        return jax.tree.map(lambda x: np.array(x), _merged(self.params, self.rest))


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for key, value in second.items():
        both = key in merged and isinstance(value, Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def compared(output: tuple[Any, Mapping[str, jax.Array]]) -> dict[str, jax.Array]:
    """Returns what of a step is compared: the loss, and the length of all gradients together."""
    return {name: output[1][name] for name in ("loss", "grad_norm")}


def keys(config: ml_collections.ConfigDict, count: int) -> jax.Array:
    """The keys that a task's loss splits from those of the first step."""
    return jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 0), count)


@contextlib.contextmanager
def on_one_device():
    """Where peers' inputs are drawn as the step draws them."""
    with jax.set_mesh(mesh_lib.make_mesh(devices=jax.devices()[:1])):
        yield
