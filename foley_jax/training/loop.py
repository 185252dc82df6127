"""The one training loop; a stage differs from another by its `Task` alone.

The order inside the loop matters: evaluate and save the state of step N, only then take the batch
of step N + 1. Beside the state the number of records taken is saved, and under which config: the
step is the position of the RNG, the records are that in the data.
"""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import math
from typing import Any

from etils import epath
import jax
import ml_collections
import numpy as np

from foley_jax.data import pipeline, position
from foley_jax.runtime import distributed, limits
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.training import continuation, evaluator, power_ema, snapshots, stopping
from foley_jax.training import optimizer as optimizer_lib
from foley_jax.training import state as state_lib
from foley_jax.training import step as step_lib
from foley_jax.training import task as task_lib
from foley_jax.training.checkpointing import checkpoint, init_from, run_directory
from foley_jax.training.logging import metrics_log, mfu, profiler, samples, throughput


class NanError(FloatingPointError):
    """The loss is not a number any more."""


def train(
    config: ml_collections.ConfigDict,
    workdir: epath.PathLike,
    *,
    profile: tuple[int, int] | None = None,
    accept_changes: bool = False,
) -> state_lib.TrainState | None:
    """Trains until `config.total_steps`, continuing what `workdir` holds.

    Continued under another config, it says what differs and what that does; see `continuation`.

    Args:
      config: see configs/base.py.
      workdir: run directory; receives config.json, checkpoints/, metrics.jsonl.
      profile: first and last update to record, counted from 1; see `profiler.Profiler`.
      accept_changes: also continue if the config gives the weights another meaning.
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
    mesh = mesh_lib.make_mesh(**config.mesh)
    task = task_lib.resolve(config)
    with jax.set_mesh(mesh), stopping.PreemptionGuard() as stopper:
        run = Run(task, config, workdir, mesh, profile, accept_changes)
        try:
            return run.until_done(stopper)
        finally:
            run.close()


def evaluate(
    config: ml_collections.ConfigDict, workdir: epath.PathLike, *, accept_changes: bool = False
) -> dict[str, float]:
    """Evaluates the newest checkpoint of `workdir` (EMA parameters if there are any).

    Raises:
      FileNotFoundError: nothing has been saved in `workdir`.
      ValueError: the checkpoint does not fit the config, or (unless `accept_changes`) the config
        gives its weights another meaning.
    """
    if checkpoint.latest_step(workdir) is None:
        raise FileNotFoundError(run_directory.no_checkpoint(workdir))
    mesh = mesh_lib.make_mesh(**config.mesh)
    task = task_lib.resolve(config)
    with jax.set_mesh(mesh):
        maker = maker_of(task, config, mesh)
        checkpoints = checkpoint.Checkpoints(workdir, read_only=True)
        step, groups, _ = continuation.restore(
            checkpoints, workdir, maker.abstract.groups(), config, accept=accept_changes
        )
        checkpoints.close()
        state = maker.restored(step, groups)
        metrics = evaluator.Evaluator(task, config, maker, mesh)(state)
    if jax.process_index() == 0:
        print(f"step {step}: " + "  ".join(f"{k} {v:.4g}" for k, v in sorted(metrics.items())))
    return metrics


def maker_of(
    task: task_lib.Task, config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> state_lib.StateFactory:
    """Makes the states of a config's run on a mesh."""
    sigmas = power_ema.sigmas_of(config)
    return state_lib.StateFactory(
        task,
        mesh,
        lambda params: optimizer_lib.make(
            config.optimizer, config.total_steps, task.weight_decay_mask(params)
        ),
        seed=limits.seed(config.seed, "config.seed"),
        ema=config.ema_decay > 0 or bool(sigmas),
        averages=max(0, len(sigmas) - 1),
    )


def step_of(
    task: task_lib.Task,
    config: ml_collections.ConfigDict,
    maker: state_lib.StateFactory,
    mesh: jax.sharding.Mesh,
) -> Callable[[state_lib.TrainState, task_lib.Batch], tuple[state_lib.TrainState, dict]]:
    """The jitted training step of a config's run."""
    return step_lib.make(
        task,
        maker,
        mesh,
        schedule=optimizer_lib.schedule(config.optimizer, config.total_steps),
        seed=config.seed,
        ema_decay=config.ema_decay,
        sigmas=power_ema.sigmas_of(config),
        accumulate=config.get("accumulate", 1),
    )


def _checkpoints(
    config: ml_collections.ConfigDict, workdir: epath.PathLike
) -> tuple[checkpoint.Checkpoints, int]:
    """Those of `workdir`, and how many of the best ones stay."""
    fields = config.checkpoint
    keep_best = fields.get("keep_best", 0)
    if keep_best and not config.eval_batches:
        raise ValueError(
            f"checkpoint.keep_best is {keep_best}, but eval_batches is 0: what is best is a matter "
            "of evaluation"
        )
    best = fields.get("best", "loss:min")
    return checkpoint.Checkpoints(
        workdir, keep=fields.keep, keep_best=keep_best, best=best
    ), keep_best


class Run:
    """One process's share of one run, from its newest checkpoint on."""

    def __init__(
        self,
        task: task_lib.Task,
        config: ml_collections.ConfigDict,
        workdir: epath.PathLike,
        mesh: jax.sharding.Mesh,
        profile: tuple[int, int] | None = None,
        accept_changes: bool = False,
    ):
        self.config, self.mesh = config, mesh
        data = config.data
        source = pipeline.open_split(data, data.train_split, task.video)
        self.order = position.Order.of(data.dir, data.train_split, source, config.seed)
        self.maker = maker_of(task, config, mesh)
        self.evaluate = evaluator.Evaluator(task, config, self.maker, mesh)
        self.checkpoints, self.keep_best = _checkpoints(config, workdir)
        self.state, self.start, before = self._first_state(workdir, accept_changes)
        distributed.all_processes_true(True)  # all have read the config that is now written over
        if jax.process_index() == 0:
            run_directory.note_config(workdir, config, self.start, before)
        self.snapshots = snapshots.Snapshots(config, workdir, self.start)
        self.log = metrics_log.MetricsLog(
            workdir, start_step=self.start, total_steps=config.total_steps
        )
        self.batches = pipeline.make_iterator(
            source,
            task.transform(train=True),
            global_batch=config.batch_size,
            seed=config.seed,
            position=self.goes_on.position,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            read_threads=data.read_threads,
            workers=data.workers,
        )
        self.train_step = step_of(task, config, self.maker, mesh)
        self.exhibition = samples.Exhibition(task, config, self.evaluate, self.log, fallback=source)
        self.meter = throughput.Meter(config.batch_size)
        self.profiler = profiler.Profiler(workdir, profile)
        self.utilisation = mfu.Utilisation(task, self.maker, mesh)
        self.pending: list[Mapping[str, jax.Array]] = []  # metrics not yet fetched
        self.saved_at = self.start if self.start else -1
        self.advised = False
        self._describe(len(source))

    def _first_state(
        self, workdir: epath.PathLike, accept_changes: bool
    ) -> tuple[state_lib.TrainState, int, Mapping[str, Any] | None]:
        """Newest good checkpoint; else fresh weights with the parts of `config.init_from`.

        Returns:
          The state, its step, and the plain config that it was saved under, if that is known.
        """
        self.goes_on = continuation.Continuation()
        found = continuation.restore(
            self.checkpoints,
            workdir,
            self.maker.abstract.groups(),
            self.config,
            accept=accept_changes,
        )
        if found is not None:
            step, groups, about = found
            self.goes_on = continuation.of(about, self.config, self.order, step)
            return self.maker.restored(step, groups), step, about.get("config")
        abstract = self.maker.abstract
        grafts = init_from.load(self.config.init_from.to_dict(), (abstract.params, abstract.rest))
        return self.maker.fresh(grafts), 0, None

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
        for line in self.goes_on.lines:
            self.log.say(f"  since step {self.start}: {line}")

    def until_done(self, stopper: stopping.PreemptionGuard) -> state_lib.TrainState:
        """Steps until `total_steps` or SIGTERM; the last state is on disk when this returns."""
        config, step = self.config, self.start
        while True:
            last = step == config.total_steps
            stop = stopper.now(step)
            measured = None
            if (last or not stop) and self._evaluation_due(step):
                self._check(step)
                with self.meter.paused():
                    measured = self.evaluate(self.state)
                    self.log.write(step, "eval", measured)
            if self.snapshots.due(step):
                self._check(step)
                with self.meter.paused():
                    self.snapshots.save(step, self.state)
            if self._due(step, config.checkpoint.every_steps) or stop:
                self._save(step, measured)
            if self.exhibition.due(step) and step > self.start and not stop:
                self._check(step)
                with self.meter.paused():
                    self.exhibition(step, self.state)
            if last or stop:
                break
            step += 1
            self._update(step)
            self.log.advance()
            if step % config.log_every == 0 or step == config.total_steps:
                self._write(step, self._check(step))
        if not last:
            self.log.say(f"stopped by SIGTERM at step {step}; the same command continues")
        self.checkpoints.wait()
        self.snapshots.wait()
        return self.state

    def _update(self, number: int) -> None:
        """Takes a batch and hands update `number` to the devices."""
        if self.profiler.begins(number):
            with self.meter.paused():
                self.profiler.start()
        # a hidden transfer would wait for the device
        with (
            jax.transfer_guard("disallow"),
            jax.profiler.StepTraceAnnotation("train", step_num=number),
        ):
            with self.meter.waiting():
                batch = distributed.global_batch(next(self.batches), self.mesh)
            first = number == self.start + 1
            if first:
                self.utilisation.count(batch)
            with self.meter.compiling() if first else contextlib.nullcontext():
                self.state, metrics = self.train_step(self.state, batch)
        self.meter.stepped(metrics["loss"])
        self.pending.append(metrics)
        if self.profiler.ends(number):
            with self.meter.paused():
                self._stop_profile(metrics)

    def _stop_profile(self, result: Any = None) -> None:
        if self.profiler.stop(result):
            self.log.say(f"trace in {self.profiler.folder}; --help says how to open it")

    def _due(self, step: int, every: int) -> bool:
        """Every `every` steps and at the end, but not where this process started."""
        if step == self.config.total_steps:
            return True
        return every > 0 and step > self.start and step % every == 0

    def _evaluation_due(self, step: int) -> bool:
        """At its own intervals; and before every save, if the best ones are to be kept."""
        if not self.config.eval_batches:
            return False
        saved = self.keep_best and self._due(step, self.config.checkpoint.every_steps)
        return saved or self._due(step, self.config.eval_every)

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

    def _write(self, step: int, fetched: list[Mapping[str, np.ndarray]]) -> None:
        """Logs the values of this very step, the mean loss and the speed since the last line."""
        speed = self.meter.read()
        self.log.write(
            step,
            "train",
            {
                **fetched[-1],
                "loss_mean": np.mean([m["loss"] for m in fetched]),
                **speed,
                **self.utilisation.read(speed["steps_per_s"]),
            },
        )
        # the first line of a run also sees how threads and workers start
        if speed["data_wait"] > throughput.SLOW_DATA and "compile_s" not in speed:
            self._advise(speed["data_wait"])

    def _advise(self, data_wait: float) -> None:
        """Says once what to do against waiting for data."""
        if self.advised:
            return
        self.advised, data = True, self.config.data
        self.log.say(
            f"training waits for data {data_wait:.0%} of the time: try more "
            f"--config.data.read_threads (now {data.read_threads}), and where cores are free more "
            f"--config.data.workers (now {data.workers})"
        )

    def _save(self, step: int, measured: Mapping[str, float] | None) -> None:
        if step == self.saved_at:
            return
        self._check(step)  # a state that follows a NaN must not replace a good checkpoint
        with self.meter.paused():
            self.checkpoints.save(step, self.state.groups(), measured, self._about(step))
        self.saved_at = step

    def _about(self, step: int) -> dict[str, Any]:
        """Returns what a checkpoint tells those that continue from it; see `continuation`."""
        taken = self.goes_on.position + (step - self.start) * self.config.batch_size
        return {
            "config": run_directory.plain(self.config),
            "records": taken,
            "order": dataclasses.asdict(self.order),
        }

    def close(self) -> None:
        self.meter.close()
        try:
            self._stop_profile()
        finally:
            self.log.close()
            self.checkpoints.close()
            self.snapshots.close()
