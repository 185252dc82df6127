"""The train state: what a run is between two steps, and how it is made."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from foley_jax.runtime import distributed, init_keys, init_rng, partition, seed_keys
from foley_jax.runtime import mesh as mesh_lib
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
    """

    step: jax.Array
    params: Any
    rest: Any
    opt_state: Any
    ema: Any

    def groups(self) -> dict[str, Any]:
        """Checkpoint groups; the step is the checkpoint's name."""
        return {
            "params": self.params,
            "rest": self.rest,
            "opt_state": self.opt_state,
            "ema": self.ema,
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
    ):
        self._ema = ema
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
        ema = jax.tree.map(jnp.copy, params) if self._ema else None
        opt_state = self.optimizer.init(params)
        return TrainState(jnp.zeros((), jnp.int32), params, rest, opt_state, ema)

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


def _gradients(
    task: task_lib.Task, maker: StateFactory
) -> Callable[..., tuple[Any, Any, dict[str, jax.Array]]]:
    """(params, rest, batch, key) -> (gradients, next rest, metrics with the loss)."""

    def gradients(
        params: Any, rest: Any, batch: task_lib.Batch, key: jax.Array
    ) -> tuple[Any, Any, dict[str, jax.Array]]:
        def loss_fn(params: Any) -> tuple[jax.Array, tuple[dict, Any]]:
            model = nnx.merge(maker.graphdef, params, rest)
            loss, metrics = task.loss(model, batch, key, train=True)
            new = nnx.to_pure_dict(nnx.split(model, task.trainable, ...)[2])
            return loss, (dict(metrics), freeze.keep(rest, new, task.config.get("freeze", ())))

        (loss, (metrics, new)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        return grads, new, {**metrics, "loss": loss}

    return gradients


def _accumulated(
    gradients: Callable[..., tuple[Any, Any, dict[str, jax.Array]]],
    params: Any,
    rest: Any,
    batch: task_lib.Batch,
    key: jax.Array,
    count: int,
) -> tuple[Any, Any, dict[str, jax.Array]]:
    """`gradients` of `count` parts of a batch, one after another: means, and the last `rest`.

    Part i holds the rows i, i + count, ...: every device keeps the rows that it has. Each part
    has noise of its own, fold_in(key, i).
    """
    if count == 1:
        return gradients(params, rest, batch, key)
    parts = jax.tree.map(lambda x: _interleaved(x, count), batch)

    def add(carry: tuple[Any, Any], part: tuple[jax.Array, task_lib.Batch]):
        total, rest = carry
        index, rows = part
        rows = jax.tree.map(partition.shard_batch, rows)
        grads, rest, metrics = gradients(params, rest, rows, jax.random.fold_in(key, index))
        return (jax.tree.map(jnp.add, total, grads), rest), metrics

    zeros = jax.tree.map(jnp.zeros_like, params)
    (total, rest), metrics = jax.lax.scan(
        add, (zeros, rest), (jnp.arange(count, dtype=jnp.int32), parts)
    )
    mean = jax.tree.map(lambda x: x / count, total)
    return mean, rest, jax.tree.map(lambda x: x.mean(axis=0), metrics)


def _interleaved(x: jax.Array, count: int) -> jax.Array:
    """[B, ...] -> [count, B / count, ...], part i the rows i, i + count, ..."""
    return jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0)


def make_train_step(
    task: task_lib.Task,
    maker: StateFactory,
    mesh: jax.sharding.Mesh,
    *,
    schedule: optax.Schedule,
    seed: int,
    ema_decay: float,
    accumulate: int = 1,
) -> Callable[[TrainState, task_lib.Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """The jitted step (state, global batch) -> (next state, float32 scalars).

    The old state is donated. Noise comes from fold_in(seed, step): a step means the same whether
    the run was stopped before it or not.

    Args:
      accumulate: how many parts of the batch go through the network one after another, for one
        update with the mean of their gradients; see `_accumulated`.
    Raises:
      ValueError: the task's loss is not a mean over examples, and `accumulate` is not 1.
    """
    if accumulate > 1 and not task.accumulates:
        raise ValueError(
            f"config.accumulate is {accumulate}, but the loss of task {task.config.task!r} "
            "compares the examples of the whole batch with each other; use more devices, "
            "config.mesh.fsdp or a smaller batch_size"
        )

    gradients = _gradients(task, maker)

    def step(state: TrainState, batch: task_lib.Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        rows = len(jax.tree.leaves(batch)[0])
        if rows % (accumulate * mesh.size):
            raise ValueError(
                f"a batch of {rows} cannot be cut into {accumulate} parts for {mesh.size} devices; "
                f"set batch_size to a multiple of {accumulate * mesh.size}, or config.accumulate"
            )
        key = jax.random.fold_in(seed_keys.key(seed), state.step)
        grads, rest, metrics = _accumulated(
            gradients, state.params, state.rest, batch, key, accumulate
        )
        updates, opt_state = maker.optimizer.update(grads, state.opt_state, state.params)
        params = task.constrain(optax.apply_updates(state.params, updates))
        ema = state.ema
        if ema is not None:
            ema = optax.incremental_update(params, ema, 1.0 - ema_decay)
        metrics = {
            **metrics,
            "grad_norm": optax.tree.norm(grads),
            "lr": schedule(state.step),
        }
        return TrainState(state.step + 1, params, rest, opt_state, ema), metrics

    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(maker.shardings, mesh_lib.batch(mesh)),
        out_shardings=(maker.shardings, mesh_lib.replicated(mesh)),
        compiler_options=mesh_lib.compiler_options(mesh),
    )
