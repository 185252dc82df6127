"""Saves and restores train states; the only file that knows orbax.

A checkpoint is a folder `checkpoints/STEP/` of a run directory: a few groups ("params", "rest",
"opt_state", "ema", "averages"), each a flat dict "input_blocks/3/1/conv1/kernel" -> array, and a
manifest with shape, dtype and checksum of every leaf. Restoring verifies every checksum: orbax
itself returns a flipped byte as if nothing had happened.
"""

from collections.abc import Callable, Mapping
import logging
from typing import Any

from etils import epath
import jax
import orbax.checkpoint as ocp

from foley_jax.runtime import distributed
from foley_jax.training import paths, storage_errors
from foley_jax.training.checkpointing import checksum, save_barrier
from foley_jax.training.checkpointing import manifest as manifest_lib
from foley_jax.training.checkpointing import retention as retention_lib

GROUPS = ("params", "rest", "opt_state", "ema", "averages")
_MANIFEST = "manifest"
_TRASH = "deleted"  # old checkpoints go there in one move, so that none is ever half there
_OPENINGS = 4  # tries
_UNFINISHED = ".orbax-checkpoint-tmp"
_log = logging.getLogger(__name__)


class CorruptCheckpointError(ValueError):
    """Bytes on disk are not what was saved."""


class MismatchError(ValueError):
    """A checkpoint is of another model than what is wanted; `step` is its number."""

    def __init__(self, step: int, message: str):
        super().__init__(message)
        self.step = step


class SaveError(OSError):
    """The newest state could not be written; older checkpoints are untouched."""


class Checkpoints:
    """The checkpoints of one run directory; saving is asynchronous and atomic.

    A checkpoint is written into a temporary folder and renamed when everything is in it; only then
    older ones are removed. What a killed process left half done is named and removed by the next.
    A save that fails, on a full disk for instance, is a warning, and `wait` raises it if no later
    one went well.

    Args:
      run_dir: the run directory; made if it does not exist (unless `read_only`).
      keep: how many of the newest checkpoints to keep; None keeps all.
      keep_best: how many of the best ones to keep besides; see `retention.Retention`.
      best: what makes one better, "METRIC:min" or "METRIC:max".
      read_only: nothing is written or removed.
    """

    def __init__(
        self,
        run_dir: epath.PathLike,
        *,
        keep: int | None = None,
        keep_best: int = 0,
        best: str = "loss:min",
        read_only: bool = False,
    ):
        self.folder = epath.Path(run_dir).absolute() / "checkpoints"
        self.read_only = read_only
        self.retention = retention_lib.Retention(keep, keep_best, best)
        self._metrics: dict[int, Mapping[str, float] | None] = {}
        self._pending: int | None = None  # the step that is being written
        self._failed: SaveError | None = None  # of the newest save
        if not read_only:
            self._clean_up(_log.warning)
        storage_errors.quieten()
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        barrier = None if self.read_only else save_barrier.SaveBarrier(str(self.folder))
        # orbax's own read_only mode warns about itself every time
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Preservation(self.retention, self._metrics),
            todelete_subdir=None if self.read_only else _TRASH,
            create=not self.read_only,
            async_options=ocp.options.AsyncOptions(barrier_sync_fn=barrier),
        )
        for _ in range(_OPENINGS):
            try:
                return ocp.CheckpointManager(self.folder, options=options)
            except FileNotFoundError:  # a run removed an old checkpoint while this one looked
                continue
        return ocp.CheckpointManager(self.folder, options=options)

    def steps(self) -> list[int]:
        """Completely written steps, ascending, and the one that is being written."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        groups: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts writing a checkpoint; the arrays may be donated as soon as this returns.

        Waits for the one before; if that failed, warns and goes on.

        Args:
          step: number of finished updates.
          groups: name (of `GROUPS`, for runs) -> pytree of arrays; None and empty ones are left
            out.
          metrics: of the evaluation of this state, if there was one.
          about: more about the run, plain values for JSON; `about` gives it back.
        Raises:
          ValueError: `metrics` lacks the one that `best` names, or there is a later checkpoint.
        """
        if metrics is not None:
            self.retention.check_metrics(metrics)
        self._settle()
        self._failed = None
        self._find_metrics()
        flat = {name: paths.flatten(tree) for name, tree in groups.items()}
        flat = {name: leaves for name, leaves in flat.items() if leaves}
        items = {name: ocp.args.PyTreeSave(leaves) for name, leaves in flat.items()}
        items[_MANIFEST] = ocp.args.JsonSave(manifest_lib.make(step, flat, metrics, about))
        self._metrics[step], self._pending = metrics, step
        try:
            started = self._manager.save(step, args=ocp.args.Composite(**items))
        except OSError as error:
            if jax.process_count() > 1:  # the others wait for this one inside orbax
                raise self._fail(step, error) from error
            self._give_up(error)
            return
        if not started:
            raise ValueError(f"step {step} cannot follow {self.steps()} in {self.folder}")

    def _find_metrics(self) -> None:
        """Reads what the checkpoints of earlier processes were worth."""
        if not self.retention.keep_best:
            return
        for step in sorted(set(self.steps()) - set(self._metrics)):
            try:
                self._metrics[step] = self.metrics(step)
            except CorruptCheckpointError:  # no candidate for the best
                self._metrics[step] = None

    def _settle(self) -> None:
        """Waits for what is being written; all processes agree on whether it went well."""
        error = None
        try:
            self._manager.wait_until_finished()
        except Exception as caught:  # whatever a file system may say
            error = caught
        failed = error is not None
        if not self.read_only:
            failed = not distributed.all_processes_true(not failed)
        if failed:
            self._give_up(error)
        self._pending = None
        self._clean_up(_log.debug)

    def _give_up(self, error: Exception | None) -> None:
        """Notes that the newest save failed, and forgets it."""
        self._failed = self._fail(self._pending, error)
        self._failed.__cause__ = error
        self._pending = None
        self._manager.reload()  # nothing was removed for it
        if jax.process_index() == 0:
            _log.warning(
                "%s; training goes on, the checkpoints of steps %s stay, the next save tries again",
                self._failed,
                self.steps(),
            )

    def _fail(self, step: int | None, error: Exception | None) -> SaveError:
        text = "it failed on another process"
        if error is not None:
            text = storage_errors.in_words(error)
        return SaveError(f"step {step} could not be saved in {self.folder} ({text})")

    def _clean_up(self, tell) -> None:
        """Removes what a killed process or a failed save left half written or half removed."""
        if jax.process_index() or self.read_only or not self.folder.exists():
            return
        for path in self.folder.iterdir():
            if _UNFINISHED in path.name:
                tell("%s is only half written (its save was interrupted); removing it", path)
                path.rmtree()
            elif path.name == _TRASH:
                path.rmtree()

    def restore(self, target: Mapping[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Restores the newest undamaged checkpoint; damaged ones are removed with a warning.

        Args:
          target: for each group a pytree of ShapeDtypeStructs with shardings: what is wanted,
            and on which devices; any mesh and any number of processes will do.
        Returns:
          (step, groups as in `target`), or None if nothing has been saved yet.
        Raises:
          MismatchError: the checkpoint is of another model; the message lists the differences.
          CorruptCheckpointError: every checkpoint is damaged.
        """
        flat = {name: paths.flatten(tree) for name, tree in target.items()}
        found = self.newest({name: leaves for name, leaves in flat.items() if leaves})
        if found is None:
            return None
        step, leaves = found
        restored = {
            name: paths.restore(tree, leaves.get(name, {})) for name, tree in target.items()
        }
        return step, restored

    def newest(
        self, wanted: Mapping[str, Mapping[str, jax.ShapeDtypeStruct]], *, step: int | None = None
    ) -> tuple[int, dict[str, dict[str, jax.Array]]] | None:
        """As `restore`, for flat groups; `step` asks for one checkpoint instead of the newest."""
        return self.first_good(step, lambda step: self.read(step, wanted, strict=True))

    def forget_after(self, step: int) -> None:
        """Removes all later checkpoints."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def first_good(self, step: int | None, read: Callable[[int], Any]) -> tuple[int, Any] | None:
        """(step, read(step)) of the newest checkpoint that is not damaged; None if there is none.

        Args:
          step: the only one to try; None tries all.
        Raises:
          CorruptCheckpointError: all are damaged.
        """
        steps = self.steps() if step is None else [step]
        damage = []
        while steps:
            step = steps.pop()
            try:
                result = step, read(step)
            except CorruptCheckpointError as error:
                damage.append((step, error))
                continue
            for bad, error in damage:
                _log.warning("%s; using step %d instead", error, step)
                if not self.read_only:
                    self._manager.delete(bad)
            return result
        if damage:
            raise CorruptCheckpointError("; ".join(str(error) for _, error in damage))
        return None

    def read(
        self,
        step: int,
        wanted: Mapping[str, Mapping[str, jax.ShapeDtypeStruct]],
        *,
        strict: bool = False,
    ) -> dict[str, dict[str, jax.Array]]:
        """Reads some leaves of one checkpoint and verifies them.

        Args:
          step: one of `steps()`.
          wanted: group -> path -> ShapeDtypeStruct with sharding.
          strict: the checkpoint must hold nothing else.
        Raises:
          MismatchError: a wanted leaf is missing or has another shape or dtype.
          CorruptCheckpointError: bytes are damaged; the message names the leaf.
        """
        saved = self.manifest(step)
        names = GROUPS if strict else tuple(wanted)
        problems = manifest_lib.differences(saved, wanted, names, strict=strict)
        if problems:
            shown = "\n  ".join(problems[:10]) + ("\n  ..." if len(problems) > 10 else "")
            raise MismatchError(
                step,
                f"{self.folder / str(step)} does not fit this config ({len(problems)} "
                f"differences); use the config it was trained with, or a new --workdir\n  {shown}",
            )
        items = {}
        for name, leaves in wanted.items():
            leaves = dict(leaves)
            items[name] = ocp.args.PyTreeRestore(
                leaves,
                restore_args=ocp.checkpoint_utils.construct_restore_args(leaves),
                partial_restore=True,
            )
        result = {k: dict(v) for k, v in self._read_items(step, items).items()} if items else {}
        self._verify(step, saved, result)
        return result

    def manifest(self, step: int) -> dict[str, dict[str, dict]]:
        """group -> path -> {"shape", "dtype", "checksum"} of one checkpoint.

        Raises:
          CorruptCheckpointError: the manifest is damaged.
          ValueError: written by a version of this code with another format.
        """
        return self._manifest(step)["leaves"]

    def metrics(self, step: int) -> dict[str, float] | None:
        """Metrics of the evaluation that came before a save; None if there was none."""
        return self._manifest(step).get("metrics")

    def about(self, step: int) -> dict[str, Any]:
        """Returns what `save` was told about the run; empty for checkpoints of earlier versions."""
        return self._manifest(step).get("about", {})

    def _manifest(self, step: int) -> dict[str, Any]:
        items = {_MANIFEST: ocp.args.JsonRestore()}
        manifest = self._read_items(step, items)[_MANIFEST]
        if not manifest_lib.is_intact(manifest):
            raise CorruptCheckpointError(
                f"{self.folder / str(step)} is damaged (the checksum of its manifest is another)"
            )
        if manifest["format"] != manifest_lib.FORMAT:
            raise ValueError(
                f"{self.folder / str(step)} has checkpoint format {manifest['format']}, "
                f"this code reads {manifest_lib.FORMAT}"
            )
        return manifest

    def _read_items(self, step: int, items: dict[str, Any]) -> dict[str, Any]:
        try:
            read = self._manager.restore(step, args=ocp.args.Composite(**items))
            return {name: read[name] for name in items}
        except Exception as error:  # damage surfaces as ValueError, OSError, KeyError, ...
            raise CorruptCheckpointError(
                f"{self.folder / str(step)} is damaged and cannot be read "
                f"({storage_errors.in_words(error)})"
            ) from error

    def _verify(self, step: int, saved: Mapping, restored: Mapping) -> None:
        """Compares every leaf with what was saved; orbax leaves out what its metadata lost."""
        for name, leaves in restored.items():
            there = {key: x for key, x in leaves.items() if isinstance(x, jax.Array)}
            found = checksum.of_leaves(there)
            bad = [key for key in leaves if found.get(key) != saved[name][key]["checksum"]]
            if bad:
                raise CorruptCheckpointError(
                    f"{self.folder / str(step)} is damaged: checksum of "
                    + ", ".join(f"{name}/{key}" for key in bad[:5])
                )

    def wait(self) -> None:
        """Waits until everything is on disk.

        Raises:
          SaveError: the newest state could not be written; the message says why.
        """
        self._settle()
        if self._failed is not None:
            raise SaveError(
                f"{self._failed}; make room and run again: it continues from the newest of "
                f"steps {self.steps()}"
            ) from self._failed.__cause__

    def close(self) -> None:
        """Waits and lets go of the threads; a save that fails now is a warning."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # must not hide why the run ends
            _log.warning("%s", self._fail(self._pending, error))
        self._manager.close()
        self._clean_up(_log.debug)


class _Preservation:
    """Orbax's question which checkpoints stay, answered by `Retention`."""

    def __init__(self, retention: retention_lib.Retention, metrics: Mapping[int, Any]):
        self._retention, self._metrics = retention, metrics

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        del context
        steps = sorted(info.step for info in checkpoints)
        kept = self._retention.of(steps, self._metrics)
        return [info.step in kept for info in checkpoints]


def latest_step(run_dir: epath.PathLike) -> int | None:
    """Newest completely written step of a run; None if there is none."""
    if not (epath.Path(run_dir) / "checkpoints").exists():
        return None
    checkpoints = Checkpoints(run_dir, read_only=True)
    steps = checkpoints.steps()
    checkpoints.close()
    return steps[-1] if steps else None
