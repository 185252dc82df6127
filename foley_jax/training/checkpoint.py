"""Saves and restores runs; the only file that knows orbax.

A run directory holds `config.json` and `checkpoints/STEP/`. A checkpoint is a few groups
("params", "rest", "opt_state", "ema"), each a flat dict "input_blocks/3/1/conv1/kernel" -> array,
and a manifest with shape, dtype and checksum of every leaf. Restoring verifies every checksum:
orbax itself returns a flipped byte as if nothing had happened.
"""

from collections.abc import Mapping
import json
import logging
from typing import Any
import zlib

from etils import epath
import jax
import ml_collections
import orbax.checkpoint as ocp

from foley_jax.training import checksum, paths
from foley_jax.training import task as task_lib

FORMAT = 1
GROUPS = ("params", "rest", "opt_state", "ema")
_MANIFEST = "manifest"
_log = logging.getLogger(__name__)


class CorruptCheckpointError(ValueError):
    """Bytes on disk are not what was saved."""


class Checkpoints:
    """The checkpoints of one run directory; saving is asynchronous.

    Args:
      run_dir: the run directory; made if it does not exist (unless `read_only`).
      keep: how many checkpoints to keep; None keeps all.
      read_only: nothing is written or removed.
    """

    def __init__(self, run_dir: epath.PathLike, *, keep: int | None = None, read_only=False):
        self.folder = epath.Path(run_dir).absolute() / "checkpoints"
        self.read_only = read_only
        # orbax's own read_only mode warns about itself every time
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=not read_only),
        )

    def steps(self) -> list[int]:
        """Completely written steps, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, groups: Mapping[str, Any]) -> None:
        """Starts writing a checkpoint; the arrays may be donated as soon as this returns.

        Args:
          step: number of finished updates.
          groups: pytree of arrays for each name in `GROUPS`; None and empty ones are left out.
        """
        flat = {name: paths.flatten(tree) for name, tree in groups.items()}
        flat = {name: leaves for name, leaves in flat.items() if leaves}
        items = {name: ocp.args.PyTreeSave(leaves) for name, leaves in flat.items()}
        items[_MANIFEST] = ocp.args.JsonSave(_make_manifest(step, flat))
        self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, target: Mapping[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Restores the newest undamaged checkpoint; damaged ones are removed with a warning.

        Args:
          target: for each group a pytree of ShapeDtypeStructs with shardings: what is wanted,
            and on which devices; any mesh and any number of processes will do.
        Returns:
          (step, groups as in `target`), or None if nothing has been saved yet.
        Raises:
          ValueError: the checkpoint is of another model; the message lists the differences.
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
        return self._first_good(step, lambda step: self.read(step, wanted, strict=True))

    def _first_good(self, step: int | None, read) -> Any:
        """(step, read(step)) of the newest checkpoint that is not damaged."""
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
          ValueError: a wanted leaf is missing or has another shape or dtype.
          CorruptCheckpointError: bytes are damaged; the message names the leaf.
        """
        saved = self.manifest(step)
        problems = _differences(saved, wanted, strict)
        if problems:
            shown = "\n  ".join(problems[:10]) + ("\n  ..." if len(problems) > 10 else "")
            raise ValueError(
                f"{self.folder / str(step)} does not fit this config ({len(problems)} "
                f"differences); use the config it was trained with, or a new --workdir\n  {shown}"
            )
        items = {}
        for name, leaves in wanted.items():
            leaves = dict(leaves)
            items[name] = ocp.args.PyTreeRestore(
                leaves,
                restore_args=ocp.checkpoint_utils.construct_restore_args(leaves),
                partial_restore=True,
            )
        restored = self._read_items(step, items) if items else {}
        result = {name: dict(restored[name]) for name in wanted}
        self._verify(step, saved, result)
        return result

    def manifest(self, step: int) -> dict[str, dict[str, dict]]:
        """group -> path -> {"shape", "dtype", "checksum"} of one checkpoint.

        Raises:
          CorruptCheckpointError: the manifest is damaged.
          ValueError: written by a version of this code with another format.
        """
        manifest = self._read_items(step, {_MANIFEST: ocp.args.JsonRestore()})[_MANIFEST]
        leaves = manifest.get("leaves")
        if manifest.get("crc32") != _crc32(leaves):
            raise CorruptCheckpointError(f"{self.folder / str(step)}: the manifest is damaged")
        if manifest["format"] != FORMAT:
            raise ValueError(
                f"{self.folder / str(step)} has checkpoint format {manifest['format']}, "
                f"this code reads {FORMAT}"
            )
        return leaves

    def _read_items(self, step: int, items: dict[str, Any]) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # damage surfaces as ValueError, OSError, KeyError, ...
            text = " ".join(str(error).split())[:300]
            raise CorruptCheckpointError(
                f"{self.folder / str(step)} is damaged and cannot be read "
                f"({type(error).__name__}: {text})"
            ) from error

    def _verify(self, step: int, saved: Mapping, restored: Mapping) -> None:
        for name, leaves in restored.items():
            found = checksum.of_leaves(leaves)
            bad = [key for key in leaves if found[key] != saved[name][key]["checksum"]]
            if bad:
                raise CorruptCheckpointError(
                    f"{self.folder / str(step)} is damaged: checksum of "
                    + ", ".join(f"{name}/{key}" for key in bad[:5])
                )

    def wait(self) -> None:
        """Waits until everything is on disk; raises what went wrong in the background."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the threads."""
        self._manager.close()


def _crc32(leaves: Any) -> int:
    return zlib.crc32(json.dumps(leaves, sort_keys=True).encode())


def _make_manifest(step: int, flat: Mapping[str, Mapping[str, jax.Array]]) -> dict[str, Any]:
    leaves = {}
    for name, arrays in flat.items():
        sums = checksum.of_leaves(arrays)
        leaves[name] = {
            key: {"shape": list(x.shape), "dtype": str(x.dtype), "checksum": sums[key]}
            for key, x in arrays.items()
        }
    return {"format": FORMAT, "step": step, "leaves": leaves, "crc32": _crc32(leaves)}


def _differences(saved: Mapping, wanted: Mapping, strict: bool) -> list[str]:
    problems = []
    for name in GROUPS if strict else wanted:
        have, want = saved.get(name, {}), wanted.get(name, {})
        for key in sorted(set(want) - set(have)):
            problems.append(f"{name}/{key}: not in the checkpoint")
        for key in sorted(set(have) - set(want)) if strict else ():
            problems.append(f"{name}/{key}: in the checkpoint only")
        for key in sorted(set(have) & set(want)):
            old = (tuple(have[key]["shape"]), have[key]["dtype"])
            new = (tuple(want[key].shape), str(want[key].dtype))
            if old != new:
                problems.append(f"{name}/{key}: {old} in the checkpoint, {new} wanted")
    return problems


def latest_step(run_dir: epath.PathLike) -> int | None:
    """Newest completely written step of a run; None if there is none."""
    if not (epath.Path(run_dir) / "checkpoints").exists():
        return None
    checkpoints = Checkpoints(run_dir, read_only=True)
    steps = checkpoints.steps()
    checkpoints.close()
    return steps[-1] if steps else None


def save_config(run_dir: epath.PathLike, config: ml_collections.ConfigDict) -> None:
    """Writes `config.json` into a run directory."""
    folder = epath.Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    plain = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
    temporary = folder / "config.json.tmp"
    temporary.write_text(json.dumps(plain, indent=2) + "\n")
    temporary.replace(folder / "config.json")


def load_config(run_dir: epath.PathLike) -> ml_collections.ConfigDict:
    """Reads `config.json`; lists come back as tuples, as configs write them.

    Raises:
      FileNotFoundError: not a run directory; the message says how to make one.
    """
    file = epath.Path(run_dir) / "config.json"
    if not file.exists():
        raise FileNotFoundError(no_checkpoint(run_dir))
    return ml_collections.ConfigDict(_tuples(json.loads(file.read_text())))


def _tuples(x: Any) -> Any:
    if isinstance(x, dict):
        return {key: _tuples(value) for key, value in x.items()}
    return tuple(_tuples(value) for value in x) if isinstance(x, list) else x


def save_model(
    run_dir: epath.PathLike,
    *,
    config: Mapping[str, Any],
    params: Any,
    rest: Any,
    kind: str | None = None,
) -> None:
    """Writes a model without optimizer (a converted one) as a run directory with step 0.

    Args:
      run_dir: a new folder.
      config: what `load_model_state` gives back; with `task` and `model` the folder can be
        sampled from like any run.
      params: nested dict of trainable arrays.
      rest: nested dict of frozen weights and statistics.
      kind: where the weights come from, e.g. "diff_foley/ldm"; kept as `config.kind`.
    Raises:
      ValueError: the folder holds a checkpoint already.
    """
    if latest_step(run_dir) is not None:
        raise ValueError(f"{run_dir} holds a checkpoint already; choose a new folder")
    config = ml_collections.ConfigDict(dict(config))
    if kind is not None:
        config.kind = kind
    save_config(run_dir, config)
    checkpoints = Checkpoints(run_dir)
    groups = jax.tree.map(jax.numpy.asarray, {"params": params, "rest": rest})
    checkpoints.save(0, groups)
    checkpoints.wait()
    checkpoints.close()


def load_model_state(
    run_dir: epath.PathLike, *, ema: bool = True, step: int | None = None
) -> tuple[ml_collections.ConfigDict, dict, dict]:
    """Reads the model of a run onto the first device.

    Args:
      run_dir: workdir of a run, or a folder that `foley_jax.convert` wrote.
      ema: take the averaged parameters if there are any.
      step: a saved step; by default the newest one that is not damaged.
    Returns:
      The run's config; params and rest as nested dicts of arrays, list indices as ints.
    Raises:
      FileNotFoundError: no checkpoint; the message says which command makes one.
      CorruptCheckpointError: damaged; the message names the leaf.
    """
    config = load_config(run_dir)
    groups = read_groups(run_dir, ema=ema, step=step)
    return config, paths.nest(groups["params"]), paths.nest(groups["rest"])


def read_groups(
    run_dir: epath.PathLike,
    *,
    ema: bool = True,
    step: int | None = None,
    shardings: Mapping[str, jax.sharding.Sharding] | None = None,
) -> dict[str, dict[str, jax.Array]]:
    """{"params", "rest"} of a run as flat dicts; see `load_model_state`.

    Args:
      shardings: path -> where to put that leaf; given, only these leaves are read.
    """
    if latest_step(run_dir) is None:
        raise FileNotFoundError(no_checkpoint(run_dir))
    checkpoints = Checkpoints(run_dir, read_only=True)
    if step is not None and step not in checkpoints.steps():
        raise FileNotFoundError(f"{run_dir} has no step {step}; it has {checkpoints.steps()}")
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def read(step: int) -> dict[str, dict[str, jax.Array]]:
        saved = checkpoints.manifest(step)
        source = "ema" if ema and "ema" in saved else "params"
        wanted = {}
        for name in {source, "rest"} & set(saved):
            wanted[name] = {
                key: jax.ShapeDtypeStruct(
                    leaf["shape"], leaf["dtype"], sharding=(shardings or {}).get(key, default)
                )
                for key, leaf in saved[name].items()
                if shardings is None or key in shardings
            }
        found = checkpoints.read(step, {name: leaves for name, leaves in wanted.items() if leaves})
        return {"params": found.get(source, {}), "rest": found.get("rest", {})}

    _, groups = checkpoints._first_good(step, read)
    checkpoints.close()
    return groups


def leaf_shapes(run_dir: epath.PathLike) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every model leaf (params and rest) in a run's newest checkpoint."""
    newest = latest_step(run_dir)
    if newest is None:
        raise FileNotFoundError(no_checkpoint(run_dir))
    checkpoints = Checkpoints(run_dir, read_only=True)
    _, saved = checkpoints._first_good(None, checkpoints.manifest)
    checkpoints.close()
    groups = (saved.get(name, {}) for name in ("params", "rest"))
    return {key: tuple(leaf["shape"]) for group in groups for key, leaf in group.items()}


def no_checkpoint(run_dir: epath.PathLike) -> str:
    """One line: nothing at `run_dir`, and which command makes it."""
    name = epath.Path(run_dir).name
    stage = next((s for s in task_lib.TASKS if name.startswith(s)), "STAGE")
    variant = ":demo" if "demo" in epath.Path(run_dir).parts else ""
    return (
        f"no checkpoint in {run_dir}; train one with `python -m foley_jax.main "
        f"--config=configs/{stage}.py{variant} --workdir={run_dir}`, or convert an official one "
        f"with `python -m foley_jax.convert KIND FILE {run_dir}`"
    )
