"""The train state: what a run is between two steps, and how it is made."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from foley_jax.runtime import distributed, init_keys, init_rng, partition
from foley_jax.training import freeze, paths
from foley_jax.training import task as task_lib

# Initialisation runs once: compiling it well takes far longer than running it badly.
_RUNS_ONCE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a checkpoint holds.

    Attributes:
      step: int32 scalar, finished updates; also the position in the data and of the RNG.
      params: nested dict, what is trained.
      rest: nested dict, frozen weights and statistics.
      opt_state: of the optimizer, for `params`.
      ema: moving average of `params`, or None.
      averages: those of other lengths; see `power_ema`.
    """

    step: jax.Array
    params: Any
    rest: Any
    opt_state: Any
    ema: Any
    averages: tuple[Any, ...] = ()

    def groups(self) -> dict[str, Any]:
        """Checkpoint groups; the step is the checkpoint's name."""
        return {
            "params": self.params,
            "rest": self.rest,
            "opt_state": self.opt_state,
            "ema": self.ema,
            "averages": self.averages,
        }


class StateFactory:
    """Makes the train state of a task, each device only its own part.

    Attributes:
      graphdef: the static half of the model, for `nnx.merge(graphdef, params, rest)`.
      abstract: TrainState of ShapeDtypeStructs with shardings.
      optimizer: the gradient transformation that `make_optimizer(abstract params)` gave.
    """

    def __init__(
        self,
        task: task_lib.Task,
        mesh: jax.sharding.Mesh,
        make_optimizer: Callable[[Any], optax.GradientTransformation],
        *,
        seed: int,
        ema: bool,
        averages: int = 0,
    ):
        self._ema, self._averages = ema, averages
        captured = []

        def init() -> tuple[Any, Any]:
            # the key is made inside, so that nothing is moved to the devices
            model = task.build(init_keys.WeightKeys(init_rng.key(seed)))
            graphdef, params, rest = nnx.split(model, task.trainable, ...)
            captured.append(graphdef)
            return nnx.to_pure_dict(params), nnx.to_pure_dict(rest)

        self._init = init
        params, rest = jax.eval_shape(init)  # traced once; jit below finds it in the cache
        self.graphdef = captured[0]
        frozen = task.config.get("freeze", ())
        freeze.check(frozen, [*paths.flatten(params), *paths.flatten(rest)])
        if not jax.tree.leaves(params):
            raise ValueError(
                "the task's `trainable` filter selects no parameter"
                + (f"; config.freeze is {frozen!r}" if frozen else "")
            )
        self.optimizer = make_optimizer(params)
        self.abstract = partition.with_shardings(jax.eval_shape(self._finish, params, rest), mesh)

    @property
    def shardings(self) -> TrainState:
        """Sharding of every leaf of the state."""
        return jax.tree.map(lambda x: x.sharding, self.abstract)

    def _finish(self, params: Any, rest: Any) -> TrainState:
        ema, *averages = (jax.tree.map(jnp.copy, params) for _ in range(1 + self._averages))
        opt_state = self.optimizer.init(params)
        ema = ema if self._ema else None
        return TrainState(jnp.zeros((), jnp.int32), params, rest, opt_state, ema, tuple(averages))

    def fresh(self, grafts: Mapping[str, jax.Array]) -> TrainState:
        """Step 0 with initial weights, those of `grafts` replaced.

        Args:
          grafts: path in params or rest -> array, placed as `abstract` says.
        """
        wanted = (self.shardings.params, self.shardings.rest)
        on_cpu = jax.default_backend() == "cpu"
        init = jax.jit(
            self._init, out_shardings=wanted, compiler_options=_RUNS_ONCE if on_cpu else None
        )
        params, rest = init()
        params, rest = (_replace(tree, grafts) for tree in (params, rest))
        finish = jax.jit(self._finish, out_shardings=self.shardings, donate_argnums=(0, 1))
        return finish(params, rest)

    def restored(self, step: int, groups: Mapping[str, Any]) -> TrainState:
        """The state of a checkpoint whose groups were restored as `abstract.groups()`."""
        number = distributed.make_global(np.asarray(step, np.int32), self.shardings.step)
        return TrainState(step=number, **groups)


def _replace(tree: Any, grafts: Mapping[str, jax.Array]) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: grafts.get(paths.key_of(path), leaf), tree
    )
