"""The one training loop; a stage differs from another by its `Task` alone.

The order inside the loop matters: evaluate and save the state of step N, only then take the batch
of step N + 1. Nothing but the state is saved: the step is the position in the data and the RNG.
"""

from collections.abc import Callable, Mapping
import math
import signal
import threading
import time
from typing import Any

from etils import epath
from flax import nnx
import jax
from jax.experimental import multihost_utils
import ml_collections
import numpy as np

from foley_jax import sharding
from foley_jax.data import pipeline
from foley_jax.training import checkpoint, graft, metrics_log, run_directory
from foley_jax.training import optimizer as optimizer_lib
from foley_jax.training import state as state_lib
from foley_jax.training import task as task_lib

MAX_DAMAGED = 4  # places of the data, for configs that do not say


class NanError(FloatingPointError):
    """The loss is not a number any more."""


def train(
    config: ml_collections.ConfigDict, workdir: epath.PathLike
) -> state_lib.TrainState | None:
    """Trains until `config.total_steps`, continuing what `workdir` holds.

    Args:
      config: see configs/base.py.
      workdir: run directory; receives config.json, checkpoints/, metrics.jsonl.
    Returns:
      The final state, or None if the run had been finished before.
    Raises:
      ValueError: the config, the data or a checkpoint do not fit.
      FileNotFoundError: data or a run named in `config.init_from` is missing.
      NanError: the loss became NaN or infinite; the message names the step.
    """
    done = checkpoint.latest_step(workdir)
    if done is not None and done >= config.total_steps:
        if jax.process_index() == 0:
            print(f"{workdir}: finished at step {done} already (total_steps={config.total_steps})")
        return None
    mesh = sharding.make_mesh(**config.mesh)
    task = task_lib.resolve(config)
    with jax.set_mesh(mesh), Stopper() as stopper:
        run = Run(task, config, workdir, mesh)
        try:
            return run.until_done(stopper)
        finally:
            run.close()


def evaluate(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> dict[str, float]:
    """Evaluates the newest checkpoint of `workdir` (EMA parameters if there are any).

    Raises:
      FileNotFoundError: nothing has been saved in `workdir`.
    """
    if checkpoint.latest_step(workdir) is None:
        raise FileNotFoundError(run_directory.no_checkpoint(workdir))
    mesh = sharding.make_mesh(**config.mesh)
    task = task_lib.resolve(config)
    with jax.set_mesh(mesh):
        maker = _maker(task, config, mesh)
        checkpoints = checkpoint.Checkpoints(workdir, read_only=True)
        step, groups = checkpoints.restore(maker.abstract.groups())
        checkpoints.close()
        state = maker.restored(step, groups)
        metrics = Evaluator(task, config, maker, mesh)(state)
    if jax.process_index() == 0:
        print(f"step {step}: " + "  ".join(f"{k} {v:.4g}" for k, v in sorted(metrics.items())))
    return metrics


class Stopper:
    """Turns SIGTERM into a request to save and stop; all processes agree on the step."""

    def __enter__(self) -> "Stopper":
        self._asked = False
        # With several processes jax listens for SIGTERM itself and finds a common step.
        self._own = jax.process_count() == 1 and (
            threading.current_thread() is threading.main_thread()
        )
        if self._own:
            self._previous = signal.signal(signal.SIGTERM, self._ask)
        return self

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def now(self, step: int) -> bool:
        """Whether to stop after `step` updates."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked

    def __exit__(self, *_: object) -> None:
        if self._own:
            signal.signal(signal.SIGTERM, self._previous)


def _maker(
    task: task_lib.Task, config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> state_lib.Maker:
    return state_lib.Maker(
        task,
        mesh,
        lambda params: optimizer_lib.make(
            config.optimizer, config.total_steps, task.weight_decay_mask(params)
        ),
        seed=config.seed,
        ema=config.ema_decay > 0,
    )


def _open_source(
    config: ml_collections.ConfigDict, split: str, task: task_lib.Task
) -> pipeline.Source:
    limit = config.data.get("max_damaged", MAX_DAMAGED)
    return pipeline.open_source(config.data.dir, split, task.video, max_damaged=limit)


class Run:
    """One process's share of one run, from its newest checkpoint on."""

    def __init__(
        self,
        task: task_lib.Task,
        config: ml_collections.ConfigDict,
        workdir: epath.PathLike,
        mesh: jax.sharding.Mesh,
    ):
        self.config, self.mesh = config, mesh
        source = _open_source(config, config.data.train_split, task)
        self.maker = _maker(task, config, mesh)
        self.evaluator = Evaluator(task, config, self.maker, mesh)
        self.checkpoints = checkpoint.Checkpoints(workdir, keep=config.checkpoint.keep)
        self.state, self.start = self._first_state()
        if jax.process_index() == 0:
            run_directory.save_config(workdir, config)
        self.log = metrics_log.MetricsLog(
            workdir, start_step=self.start, total_steps=config.total_steps
        )
        self.batches = pipeline.make_iterator(
            source,
            task.transform(train=True),
            global_batch=config.batch_size,
            seed=config.seed,
            step=self.start,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            read_threads=config.data.read_threads,
            workers=config.data.workers,
        )
        self.train_step = state_lib.make_train_step(
            task,
            self.maker,
            mesh,
            schedule=optimizer_lib.schedule(config.optimizer, config.total_steps),
            seed=config.seed,
            ema_decay=config.ema_decay,
            accumulate=config.get("accumulate", 1),
        )
        self.pending: list[Mapping[str, jax.Array]] = []  # metrics not yet fetched
        self.saved_at = self.start if self.start else -1
        self._describe(len(source))

    def _first_state(self) -> tuple[state_lib.TrainState, int]:
        """Newest good checkpoint; else fresh weights with the parts of `config.init_from`."""
        found = self.checkpoints.restore(self.maker.abstract.groups())
        if found is not None:
            step, groups = found
            return self.maker.restored(step, groups), step
        abstract = self.maker.abstract
        grafts = graft.load(self.config.init_from.to_dict(), (abstract.params, abstract.rest))
        return self.maker.fresh(grafts), 0

    def _describe(self, num_records: int) -> None:
        count = sum(math.prod(x.shape) for x in jax.tree.leaves(self.maker.abstract.params))
        frozen = sum(math.prod(x.shape) for x in jax.tree.leaves(self.maker.abstract.rest))
        where = f"continues at step {self.start}" if self.start else "starts"
        self.log.say(
            f"{self.config.task} {where}: {count / 1e6:.2f} M parameters trained, "
            f"{frozen / 1e6:.2f} M values not; {num_records} clips in {self.config.data.dir}; mesh "
            f"data={self.mesh.shape['data']} fsdp={self.mesh.shape['fsdp']} "
            f"({jax.devices()[0].platform}), {jax.process_count()} process(es)"
        )

    def until_done(self, stopper: Stopper) -> state_lib.TrainState:
        """Steps until `total_steps` or SIGTERM; the last state is on disk when this returns."""
        config, step = self.config, self.start
        tick, ticked_at = time.monotonic(), step
        while True:
            last = step == config.total_steps
            stop = stopper.now(step)
            if config.eval_batches and self._due(step, config.eval_every) and (last or not stop):
                self._check(step)
                self.log.write(step, "eval", self.evaluator(self.state))
                tick, ticked_at = time.monotonic(), step
            if self._due(step, config.checkpoint.every_steps) or stop:
                self._save(step)
            if last or stop:
                break
            with jax.transfer_guard("disallow"):  # a hidden transfer would wait for the device
                batch = sharding.global_batch(next(self.batches), self.mesh)
                self.state, metrics = self.train_step(self.state, batch)
            self.pending.append(metrics)
            step += 1
            self.log.advance()
            if step % config.log_every == 0 or step == config.total_steps:
                fetched = self._check(step)
                elapsed = time.monotonic() - tick
                self._write(step, fetched, (step - ticked_at) / max(elapsed, 1e-9))
                tick, ticked_at = time.monotonic(), step
        if not last:
            self.log.say(f"stopped by SIGTERM at step {step}; the same command continues")
        self.checkpoints.wait()
        return self.state

    def _due(self, step: int, every: int) -> bool:
        """Every `every` steps and at the end, but not where this process started."""
        if step == self.config.total_steps:
            return True
        return every > 0 and step > self.start and step % every == 0

    def _check(self, step: int) -> list[Mapping[str, np.ndarray]]:
        """Fetches pending metrics; stops the run if a loss is not finite."""
        fetched, self.pending = jax.device_get(self.pending), []
        for offset, metrics in enumerate(fetched):
            if not np.isfinite(metrics["loss"]):
                bad = step - len(fetched) + offset + 1
                raise NanError(
                    f"the loss is {float(metrics['loss'])} at step {bad}; nothing of it was saved: "
                    "lower optimizer.lr or set optimizer.clip_norm, and run again to continue "
                    "from the last checkpoint"
                )
        return fetched

    def _write(self, step: int, fetched: list[Mapping[str, np.ndarray]], speed: float) -> None:
        """Logs the values of this very step and the mean loss since the last line."""
        self.log.write(
            step,
            "train",
            {
                **fetched[-1],
                "loss_mean": np.mean([m["loss"] for m in fetched]),
                "steps_per_s": speed,
            },
        )

    def _save(self, step: int) -> None:
        if step == self.saved_at:
            return
        self._check(step)  # a state that follows a NaN must not replace a good checkpoint
        self.checkpoints.save(step, self.state.groups())
        self.saved_at = step

    def close(self) -> None:
        self.log.close()
        self.checkpoints.close()


class Evaluator:
    """Mean loss and the task's own metrics over held-out batches, with EMA parameters if any.

    With `config.eval_batches` = 0 the eval split need not exist and nothing may be evaluated.
    """

    def __init__(
        self,
        task: task_lib.Task,
        config: ml_collections.ConfigDict,
        maker: state_lib.Maker,
        mesh: jax.sharding.Mesh,
    ):
        self.task, self.config, self.maker, self.mesh = task, config, maker, mesh
        self._compiled: dict[Callable, Callable] = {}
        if config.eval_batches > 0:
            self.source = self._open()

    def _open(self) -> pipeline.Source:
        data = self.config.data
        try:
            return _open_source(self.config, data.eval_split, self.task)
        except ValueError as error:
            raise ValueError(
                f"{error} (to train without evaluation: --config.eval_batches=0)"
            ) from error

    def __call__(self, state: state_lib.TrainState) -> dict[str, float]:
        """Metrics as Python floats; the same on every process."""
        params = state.params if state.ema is None else state.ema
        batches = self._batches()

        def model_fn(fn: Callable, *args: Any) -> Any:
            return self._compile(fn)(params, state.rest, *args)

        rows = [model_fn(self._loss, batch, np.int32(i)) for i, batch in enumerate(batches)]
        rows = jax.device_get(rows)
        mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        return {**mean, **self.task.evaluate(model_fn, batches)}

    def _loss(
        self, model: nnx.Module, batch: task_lib.Batch, index: jax.Array
    ) -> dict[str, jax.Array]:
        key = jax.random.fold_in(jax.random.key(self.config.seed), 2**31 - 2)
        key = jax.random.fold_in(key, index)  # the same noise at every evaluation
        loss, metrics = self.task.loss(model, batch, key, train=False)
        return {"loss": loss, **metrics}

    def _compile(self, fn: Callable) -> Callable:
        """`fn(model, ...)` as a program of (params, rest, ...); one for each `fn`."""
        if fn not in self._compiled:

            def program(params: Any, rest: Any, *args: Any) -> Any:
                return fn(nnx.merge(self.maker.graphdef, params, rest), *args)

            # every process gets the whole result
            self._compiled[fn] = jax.jit(program, out_shardings=sharding.replicated(self.mesh))
        return self._compiled[fn]

    def _batches(self) -> list[task_lib.Batch]:
        """The first `eval_batches` batches; one smaller batch if there are too few records."""
        config, num_records = self.config, len(self.source)
        size = min(config.batch_size, num_records // self.mesh.size * self.mesh.size)
        if size == 0:
            raise ValueError(
                f"split {config.data.eval_split!r} has {num_records} clips, fewer than the "
                f"{self.mesh.size} devices; set --config.eval_batches=0 to go without"
            )
        local = pipeline.make_iterator(
            self.source,
            self.task.transform(train=False),
            global_batch=size,
            seed=config.seed,
            step=0,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            shuffle=False,
            repeat=False,
            read_threads=config.data.read_threads,
            workers=0,
        )
        count = min(config.eval_batches, num_records // size)
        return [sharding.global_batch(next(local), self.mesh) for _ in range(count)]
