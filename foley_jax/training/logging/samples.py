"""Video and audio of a few held-out examples, at intervals, for TensorBoard."""

import ml_collections

from foley_jax.data import pipeline
from foley_jax.runtime import distributed
from foley_jax.training import evaluator as evaluator_lib
from foley_jax.training import state as state_lib
from foley_jax.training import task as task_lib
from foley_jax.training.logging import metrics_log

EXAMPLES = 2  # of configs that do not say


class Exhibition:
    """Exhibits that `task.show` makes of the same first examples, every `config.show_every` steps.

    The examples are those of the evaluation split, or of the training split where nothing is
    evaluated. Nothing that goes wrong here ends a training.
    """

    def __init__(
        self,
        task: task_lib.Task,
        config: ml_collections.ConfigDict,
        evaluator: evaluator_lib.Evaluator,
        log: metrics_log.MetricsLog,
        *,
        fallback: pipeline.Source,
    ):
        self._task, self._config, self._log = task, config, log
        self._evaluator = evaluator
        self._source = evaluator.source if config.eval_batches > 0 else fallback
        self._every = config.get("show_every", 0)
        self._examples = config.get("show_examples", EXAMPLES)
        self._batch: task_lib.Batch | None = None
        self._warned: set[str] = set()

    def due(self, step: int) -> bool:
        """Whether it is time, after `step` updates."""
        wanted = self._every > 0 and self._examples > 0
        return wanted and step > 0 and step % self._every == 0

    def __call__(self, step: int, state: state_lib.TrainState) -> None:
        """Makes and writes everything; every process must call it at the same step."""
        try:
            batch = self._examples_batch()
            model_fn = self._evaluator.model_fn(state, examples=self._examples)
            shown = self._task.show(model_fn, batch)
        except Exception as error:
            self._warn(f"what {self._config.task} shows cannot be made", error)
            return
        for name, what in shown.items():
            try:
                self._log.show(step, {name: what})
            except Exception as error:
                self._warn(f"{name} cannot be written", error)

    def _warn(self, what: str, error: Exception) -> None:
        """Says it the first time."""
        if what not in self._warned:
            self._warned.add(what)
            text = " ".join(str(error).split())[:300]
            self._log.say(f"warning: {what} ({type(error).__name__}: {text}); training goes on")

    def _examples_batch(self) -> task_lib.Batch:
        """The first records, as many as the devices need; all processes have it, or none."""
        if self._batch is None:
            size = self._evaluator.mesh.size
            size *= -(-self._examples // size)
            batch, error = None, None
            try:
                batch = next(
                    evaluator_lib.in_order(
                        self._source, self._task, self._config, size, repeat=True
                    )
                )
            except Exception as caught:
                error = caught
            if not distributed.all_processes_true(error is None):
                raise error or ValueError("another process cannot read its examples")
            self._batch = distributed.global_batch(batch, self._evaluator.mesh)
        return self._batch
