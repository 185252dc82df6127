"""Evaluation on held-out batches; also where every program of evaluated parameters is compiled."""

from collections.abc import Callable, Iterator
from typing import Any

from flax import nnx
import jax
import ml_collections
import numpy as np

from foley_jax.data import pipeline
from foley_jax.runtime import distributed, seed_keys
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.training import state as state_lib
from foley_jax.training import task as task_lib


class Evaluator:
    """Mean loss and the task's own metrics over held-out batches, with EMA parameters if any.

    With `config.eval_batches` = 0 the eval split need not exist and nothing may be evaluated.
    """

    def __init__(
        self,
        task: task_lib.Task,
        config: ml_collections.ConfigDict,
        maker: state_lib.StateFactory,
        mesh: jax.sharding.Mesh,
    ):
        self.task, self.config, self.maker, self.mesh = task, config, maker, mesh
        self._compiled: dict[tuple[Callable, int | None], Callable] = {}
        if config.eval_batches > 0:
            self.source = self._open()

    def _open(self) -> pipeline.Source:
        data = self.config.data
        try:
            return pipeline.open_split(data, data.eval_split, self.task.video)
        except ValueError as error:
            raise ValueError(
                f"{error} (to train without evaluation: --config.eval_batches=0)"
            ) from error

    def __call__(self, state: state_lib.TrainState) -> dict[str, float]:
        """Metrics as Python floats; the same on every process."""
        model_fn, batches = self.model_fn(state), self._batches()
        values = [model_fn(self._loss, batch, np.int32(i)) for i, batch in enumerate(batches)]
        values = jax.device_get(values)
        mean = {key: float(np.mean([value[key] for value in values])) for key in values[0]}
        return {**mean, **self.task.evaluate(model_fn, batches)}

    def _loss(
        self, model: nnx.Module, batch: task_lib.Batch, index: jax.Array
    ) -> dict[str, jax.Array]:
        key = jax.random.fold_in(seed_keys.key(self.config.seed), 2**31 - 2)
        key = jax.random.fold_in(key, index)  # the same noise at every evaluation
        loss, metrics = self.task.loss(model, batch, key, train=False)
        return {"loss": loss, **metrics}

    def model_fn(self, state: state_lib.TrainState, *, examples: int | None = None) -> Callable:
        """Returns what tasks are given.

        (fn, *args) -> fn(model, *args) with the parameters of `state`.

        Args:
          examples: of so many the results are wanted; None: all.
        """
        params = state.params if state.ema is None else state.ema

        def run(fn: Callable, *args: Any) -> Any:
            return self._compile(fn, examples)(params, state.rest, *args)

        return run

    def _compile(self, fn: Callable, examples: int | None) -> Callable:
        """`fn(model, ...)` as a program of (params, rest, ...); one for each `fn`."""
        if (fn, examples) not in self._compiled:

            def program(params: Any, rest: Any, *args: Any) -> Any:
                result = fn(nnx.merge(self.maker.graphdef, params, rest), *args)
                return result if examples is None else jax.tree.map(lambda x: x[:examples], result)

            # every process gets the whole result
            self._compiled[fn, examples] = jax.jit(
                program, out_shardings=mesh_lib.replicated(self.mesh)
            )
        return self._compiled[fn, examples]

    def _batches(self) -> list[task_lib.Batch]:
        """The first `eval_batches` batches; one smaller batch if there are too few records."""
        config, num_records = self.config, len(self.source)
        size = min(config.batch_size, num_records // self.mesh.size * self.mesh.size)
        if size == 0:
            raise ValueError(
                f"split {config.data.eval_split!r} has {num_records} clips, fewer than the "
                f"{self.mesh.size} devices; set --config.eval_batches=0 to go without"
            )
        local = in_order(self.source, self.task, config, size)
        count = min(config.eval_batches, num_records // size)
        return [distributed.global_batch(next(local), self.mesh) for _ in range(count)]


def in_order(
    source: pipeline.Source,
    task: task_lib.Task,
    config: ml_collections.ConfigDict,
    size: int,
    *,
    repeat: bool = False,
) -> Iterator[dict[str, np.ndarray]]:
    """This process's share of batches of `size` examples, from the first, as evaluated."""
    return pipeline.make_iterator(
        source,
        task.transform(train=False),
        global_batch=size,
        seed=config.seed,
        position=0,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        shuffle=False,
        repeat=repeat,
        read_threads=config.data.read_threads,
        workers=0,
    )
