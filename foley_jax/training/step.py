"""The train step: loss, gradients, maybe of parts of a batch, update and moving average."""

from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from foley_jax.runtime import mesh as mesh_lib
from foley_jax.runtime import partition, seed_keys
from foley_jax.training import freeze, power_ema
from foley_jax.training import state as state_lib
from foley_jax.training import task as task_lib


def _gradients(
    task: task_lib.Task, maker: state_lib.StateFactory
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

    Part i holds the examples i, i + count, ...: every device keeps those that it has. Each part
    has noise of its own, fold_in(key, i).
    """
    if count == 1:
        return gradients(params, rest, batch, key)
    parts = jax.tree.map(lambda x: _interleaved(x, count), batch)

    def add(carry: tuple[Any, Any], part: tuple[jax.Array, task_lib.Batch]):
        total, rest = carry
        index, some = part
        some = jax.tree.map(partition.shard_batch, some)
        grads, rest, metrics = gradients(params, rest, some, jax.random.fold_in(key, index))
        return (jax.tree.map(jnp.add, total, grads), rest), metrics

    zeros = jax.tree.map(jnp.zeros_like, params)
    (total, rest), metrics = jax.lax.scan(
        add, (zeros, rest), (jnp.arange(count, dtype=jnp.int32), parts)
    )
    mean = jax.tree.map(lambda x: x / count, total)
    return mean, rest, jax.tree.map(lambda x: x.mean(axis=0), metrics)


def _interleaved(x: jax.Array, count: int) -> jax.Array:
    """[B, ...] -> [count, B / count, ...], part i the examples i, i + count, ..."""
    return jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0)


def make(
    task: task_lib.Task,
    maker: state_lib.StateFactory,
    mesh: jax.sharding.Mesh,
    *,
    schedule: optax.Schedule,
    seed: int,
    ema_decay: float,
    sigmas: Sequence[float] = (),
    accumulate: int = 1,
) -> Callable[
    [state_lib.TrainState, task_lib.Batch], tuple[state_lib.TrainState, dict[str, jax.Array]]
]:
    """Returns the jitted step (state, global batch) -> (next state, float32 scalars).

    The old state is donated. Noise comes from fold_in(seed, step): a step means the same whether
    the run was stopped before it or not.

    Args:
      ema_decay: of the moving average, if there is one.
      sigmas: lengths of averages with power-law profiles instead; see `power_ema`.
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

    def step(
        state: state_lib.TrainState, batch: task_lib.Batch
    ) -> tuple[state_lib.TrainState, dict[str, jax.Array]]:
        size = len(jax.tree.leaves(batch)[0])
        if size % (accumulate * mesh.size):
            raise ValueError(
                f"a batch of {size} cannot be cut into {accumulate} parts for {mesh.size} devices; "
                f"set batch_size to a multiple of {accumulate * mesh.size}, or config.accumulate"
            )
        key = jax.random.fold_in(seed_keys.key(seed), state.step)
        grads, rest, metrics = _accumulated(
            gradients, state.params, state.rest, batch, key, accumulate
        )
        updates, opt_state = maker.optimizer.update(grads, state.opt_state, state.params)
        params = task.constrain(optax.apply_updates(state.params, updates))
        ema, averages = state.ema, state.averages
        if sigmas:
            shares = [power_ema.taken(state.step + 1, power_ema.gamma_of(s)) for s in sigmas]
            ema, *averages = (
                power_ema.updated(one, params, share)
                for one, share in zip((ema, *averages), shares, strict=True)
            )
        elif ema is not None:
            ema = optax.incremental_update(params, ema, 1.0 - ema_decay)
        metrics = {
            **metrics,
            "grad_norm": optax.tree.norm(grads),
            "lr": schedule(state.step),
        }
        step = state.step + 1
        return state_lib.TrainState(step, params, rest, opt_state, ema, tuple(averages)), metrics

    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(maker.shardings, mesh_lib.batch(mesh)),
        out_shardings=(maker.shardings, mesh_lib.replicated(mesh)),
        compiler_options=mesh_lib.compiler_options(mesh),
    )
