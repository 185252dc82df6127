"""Run directories: their configs, and models out of its checkpoints.

`config.json` is the config of the newest start. Where a run has gone on under another one,
`configs.jsonl` holds all of them, the first start's first, each with the update it holds from.
"""

from collections.abc import Mapping
import json
import logging
from typing import Any

from etils import epath
from flax import nnx
import jax
import ml_collections

from foley_jax.runtime import network
from foley_jax.training import adapters, paths
from foley_jax.training import task as task_lib
from foley_jax.training.checkpointing import checkpoint, exported, hashes

CONFIG, CONFIGS = "config.json", "configs.jsonl"
# what weights cannot be used without
_READ = ("task", "model", "audio", "video", "loss", "dtype", "lora")
_log = logging.getLogger(__name__)


def plain(config: Mapping[str, Any] | ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns a config as JSON gives it back: dicts, lists, numbers and texts."""
    fields = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
    return json.loads(json.dumps(fields))


def save_config(run_dir: epath.PathLike, config: ml_collections.ConfigDict) -> None:
    """Writes `config.json` into a run directory."""
    folder = epath.Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / CONFIG, json.dumps(plain(config), indent=2) + "\n")


def note_config(
    run_dir: epath.PathLike,
    config: ml_collections.ConfigDict,
    step: int,
    before: Mapping[str, Any] | None,
) -> None:
    """Notes the config under which a run starts or goes on, and keeps the earlier ones.

    Args:
      step: finished updates; what was noted for later ones was never saved and is forgotten.
      before: plain config of the checkpoint that it goes on from; None if there is none, or if
        its config is not known.
    """
    file = epath.Path(run_dir) / CONFIGS
    known = _read_configs(file) if file.exists() else []
    kept = [one for one in known if one["from_step"] < step]
    if not kept and before is not None:
        kept = [{"from_step": 0, "config": before}]
    if kept and kept[-1]["config"] != plain(config):
        kept.append({"from_step": step, "config": plain(config)})
    if known or len(kept) > 1:
        _write(file, "".join(json.dumps(one) + "\n" for one in kept))
    save_config(run_dir, config)


def config_at(run_dir: epath.PathLike, step: int) -> dict[str, Any]:
    """Returns the plain config that a run had when it finished update `step`.

    Raises:
      FileNotFoundError: not a run directory.
      ValueError: `config.json` is damaged.
    """
    file = epath.Path(run_dir) / CONFIGS
    known = _read_configs(file) if file.exists() else []
    earlier = [one for one in known if one["from_step"] < step] or known[:1]
    return earlier[-1]["config"] if earlier else plain(load_config(run_dir))


def _read_configs(file: epath.Path) -> list[dict[str, Any]]:
    """Lines of `configs.jsonl` that can be read."""
    found = []
    for line in file.read_bytes().splitlines():
        try:
            one = json.loads(line)
            found.append({"from_step": int(one["from_step"]), "config": dict(one["config"])})
        except (ValueError, TypeError, KeyError):  # damaged; the others are worth keeping
            continue
    return found


def _write(file: epath.Path, text: str) -> None:
    """Writes a file that is there whole or not at all."""
    temporary = file.parent / f"{file.name}.tmp"
    temporary.write_text(text)
    temporary.replace(file)


def load_config(run_dir: epath.PathLike) -> ml_collections.ConfigDict:
    """Reads `config.json`; lists come back as tuples, as configs write them.

    Where it is damaged, the copy in the newest checkpoint takes its place, with a warning.

    Raises:
      FileNotFoundError: not a run directory; the message says how to make one.
      ValueError: it is damaged, and no checkpoint has a copy.
    """
    file = epath.Path(run_dir) / CONFIG
    if not file.exists():
        raise FileNotFoundError(no_checkpoint(run_dir))
    copy = _config_of_newest(run_dir)
    try:
        found = json.loads(file.read_bytes())
        fault = _fault(found, copy or {})
    except ValueError as error:  # also bytes that are no text
        fault = str(error)
    if fault is not None:
        if copy is None:
            raise ValueError(f"{file} is damaged ({fault}); copy it again")
        _log.warning("%s is damaged (%s); using the copy in the newest checkpoint", file, fault)
        found = copy
    changed = [name for name in _READ if copy and found.get(name) != copy.get(name)]
    if changed:
        _log.warning(
            "%s and the copy in the newest checkpoint differ in %s: it was edited or damaged, or a "
            "run has not saved since its settings changed; it is followed",
            file,
            ", ".join(changed),
        )
    return ml_collections.ConfigDict(_tuples(found))


def _config_of_newest(run_dir: epath.PathLike) -> dict[str, Any] | None:
    if checkpoint.latest_step(run_dir) is None:
        return None
    checkpoints = checkpoint.Checkpoints(run_dir, read_only=True)
    try:
        return checkpoints.first_good(None, checkpoints.about)[1].get("config")
    except ValueError:  # damaged, or of another version: whoever reads the weights will say it
        return None
    finally:
        checkpoints.close()


def _fault(config: Any, copy: Mapping[str, Any]) -> str | None:
    """Returns what shows that a config is damaged.

    None if nothing does. Values may have been edited.
    """
    if not isinstance(config, dict):
        return "no object of settings"
    lost = [name for name in copy if name not in config]
    if lost:
        return f"it has no {lost[0]!r}"
    inner = (_fault(config[name], value) for name, value in copy.items() if isinstance(value, dict))
    return next((fault for fault in inner if fault is not None), None)


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
    if checkpoint.latest_step(run_dir) is not None:
        raise ValueError(f"{run_dir} holds a checkpoint already; choose a new folder")
    config = ml_collections.ConfigDict(dict(config))
    if kind is not None:
        config.kind = kind
    save_config(run_dir, config)
    checkpoints = checkpoint.Checkpoints(run_dir)
    groups = jax.tree.map(jax.numpy.asarray, {"params": params, "rest": rest})
    checkpoints.save(0, groups, about={"config": plain(config)})
    checkpoints.wait()
    checkpoints.close()


def export_model(
    run_dir: epath.PathLike,
    folder: epath.PathLike,
    *,
    dtype: str | None = None,
    share: epath.PathLike | None = None,
) -> int:
    """Writes the model of a run, EMA parameters if there are any, as two files and their hashes.

    Adapters (`config.lora`) are merged into the weights that they adapt.

    Args:
      run_dir: as `load_model_state`.
      folder: new; it is read like a run. A CAVP that the config names is looked for in it and
        beside it.
      dtype, share: as `exported.write`.
    Returns:
      Bytes of the weights.
    Raises:
      FileNotFoundError, CorruptCheckpointError: as `load_model_state`.
      ValueError: as `exported.write`.
    """
    config, groups = load_config(run_dir), read_groups(run_dir)
    if adapters.on(config):
        groups = _merged(config, groups)
    if config.get("distillation"):  # only training needs the teacher
        config.distillation.with_teacher = False
        groups = {name: without_teacher(leaves) for name, leaves in groups.items()}
    if config.get("cavp"):
        config.cavp = epath.Path(config.cavp).name
    size = exported.write(folder, groups, dtype=dtype, share=share)
    save_config(folder, config)
    hashes.write(folder, (CONFIG, exported.WEIGHTS))
    return size


def _merged(
    config: ml_collections.ConfigDict, groups: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The weights of a run whose adapters are merged; `config` becomes that of a run without."""
    leaves = adapters.merged(config, groups)
    config.lora.rank = 0
    task = task_lib.resolve(config)
    _, params, _ = nnx.split(network.shapes(task.build), task.trainable, ...)
    trained = paths.flatten(nnx.to_pure_dict(params))
    return {
        "params": {path: leaf for path, leaf in leaves.items() if path in trained},
        "rest": {path: leaf for path, leaf in leaves.items() if path not in trained},
    }


def without_teacher(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of a student's leaves, or parts, without its teacher's."""
    return {key: leaf for key, leaf in leaves.items() if not key.startswith("teacher_")}


def load_model_state(
    run_dir: epath.PathLike, *, ema: bool = True, step: int | None = None
) -> tuple[ml_collections.ConfigDict, dict, dict]:
    """Reads the model of a run onto the first device.

    Args:
      run_dir: workdir of a run, or a folder that `foley_jax.convert` wrote or exported.
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
    if exported.is_one(run_dir) and step is None:
        return exported.read(run_dir, shardings=shardings)
    if checkpoint.latest_step(run_dir) is None:
        raise FileNotFoundError(no_checkpoint(run_dir))
    checkpoints = checkpoint.Checkpoints(run_dir, read_only=True)
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

    _, groups = checkpoints.first_good(step, read)
    checkpoints.close()
    return groups


def leaf_shapes(run_dir: epath.PathLike) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every model leaf (params and rest) in a run's newest checkpoint."""
    if exported.is_one(run_dir):
        return exported.shapes(run_dir)
    newest = checkpoint.latest_step(run_dir)
    if newest is None:
        raise FileNotFoundError(no_checkpoint(run_dir))
    checkpoints = checkpoint.Checkpoints(run_dir, read_only=True)
    _, saved = checkpoints.first_good(None, checkpoints.manifest)
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
