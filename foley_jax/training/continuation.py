"""Going on with a run, maybe under another config than the one of its checkpoint: what differs.

A checkpoint holds the config of its run and how many records were taken (`about`). Those of earlier
versions do not: `config.json` and the number of updates stand in for them.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import fnmatch
import functools
import operator
from typing import Any

from etils import epath
import ml_collections

from foley_jax.data import pipeline
from foley_jax.data import position as position_lib
from foley_jax.training import optimizer
from foley_jax.training.checkpointing import checkpoint, run_directory

FLAG = "--accept_changes"
_QUIET, _REFUSED, _DATA = "quiet", "refused", "data"
_SCHEDULE = "the new schedule is followed"
_EVALUATION = "evaluations cannot be compared with earlier ones"
# patterns of settings -> what another value means; the first that fits decides. Refused is what
# gives the weights another meaning: shapes and losses may look well, and results are wrong.
_RULES = (
    ("log_every show_every show_examples eval_every mesh.* checkpoint.*", _QUIET),
    ("data.read_threads data.workers data.max_damaged power_ema.snapshot_steps", _QUIET),
    ("model.*remat model.*dropout model.random_shift model.*position_std", "holds from here on"),
    ("model.*attention_implementation", "holds from here on"),
    ("task model.* audio.* video.* data.companding", _REFUSED),
    ("loss.prediction loss.schedule.* loss.noised power_ema.sigmas lora.*", _REFUSED),
    ("data.dir data.train_split", _DATA),
    ("batch_size", "goes on behind the records taken so far; the learning rate is not scaled"),
    ("accumulate", "the batch is cut into other parts, with other noise"),
    ("seed", "the noise of the updates is another from here on"),
    ("data.eval_split eval_batches eval_clips", _EVALUATION),
    ("data.*", "examples are made in another way from here on"),
    ("total_steps optimizer.schedule optimizer.lr optimizer.warmup_steps", _SCHEDULE),
    ("optimizer.*", "holds from here on; the moments of the optimizer stay"),
    ("ema_decay", "the average goes on with it"),
    ("loss.*", "values of the loss cannot be compared with earlier ones"),
    ("dtype", "updates are computed in it from here on"),
    ("init_from.*", "not read again, the weights are those of the checkpoint"),
    ("*", "holds from here on"),
)
# decide which arrays a checkpoint holds
_SHAPING = "task model.* ema_decay power_ema.sigmas freeze lora.* optimizer.name"
# what going on asks of a config that no checksum protects
_NEEDED = (
    *("seed", "batch_size", "total_steps", "data.dir", "data.train_split"),
    *("optimizer.lr", "optimizer.schedule", "optimizer.warmup_steps"),
)
_NOT_SET = object()


@dataclasses.dataclass(frozen=True)
class Change:
    """One setting that differs.

    Attributes:
      name: with dots, as "optimizer.lr".
      before, now: its values, as JSON gives them.
      meaning: what the change does, or one of this file's marks.
    """

    name: str
    before: Any
    now: Any
    meaning: str

    def __str__(self) -> str:
        values = ("not set" if x is _NOT_SET else str(x) for x in (self.before, self.now))
        return f"{self.name} {' -> '.join(values)}"


def changes(about: Mapping[str, Any], config: ml_collections.ConfigDict) -> list[Change]:
    """Returns the settings that matter and differ from those of a checkpoint, if they are known."""
    if "config" not in about:
        return []
    old, new = dict(_leaves(about["config"])), dict(_leaves(run_directory.plain(config)))
    found = []
    for name in [*new, *(name for name in old if name not in new)]:
        a, b = old.get(name, _NOT_SET), new.get(name, _NOT_SET)
        if a == b:
            continue
        meaning = _meaning(name)
        if meaning == _REFUSED and (a is _NOT_SET or b is _NOT_SET):
            meaning = "holds from here on"  # a setting of another version, perhaps its default
        if meaning != _QUIET:
            found.append(Change(name, a, b, meaning))
    return found


def _meaning(name: str) -> str:
    return next(meaning for patterns, meaning in _RULES if _fits(name, patterns))


def _fits(name: str, patterns: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns.split())


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def restore(
    checkpoints: checkpoint.Checkpoints,
    run_dir: epath.PathLike,
    target: Mapping[str, Any],
    config: ml_collections.ConfigDict,
    *,
    accept: bool,
) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
    """Restores the newest good checkpoint, if it means the same under `config`.

    Args:
      target: as `Checkpoints.restore` wants it.
      accept: a config that gives the weights another meaning is not refused.
    Returns:
      (step, groups, what is known of the run that wrote it: "config", "records", "order"); None
      if nothing has been saved. Of checkpoints of earlier versions "config" alone is known, and
      not even that where `config.json` cannot be read.
    Raises:
      ValueError: the weights do not fit the config or would mean something else; the message names
        the settings.
      CorruptCheckpointError: every checkpoint is damaged.
    """
    try:
        found = checkpoints.restore(target)
    except checkpoint.MismatchError as error:
        changed = changes(_about(checkpoints, run_dir, error.step), config)
        shown = [str(change) for change in changed if _fits(change.name, _SHAPING)]
        raise ValueError(
            f"{error}\n  settings that differ: {', '.join(shown) or 'none'}"
        ) from error
    if found is None:
        return None
    step, groups = found
    about = _about(checkpoints, run_dir, step)
    problems = refused(about, config)
    if problems and not accept:
        raise ValueError(
            f"step {step} of {run_dir} was written with other settings, which say what its weights "
            f"mean: {', '.join(problems)}; use those it was written with, or a new --workdir "
            f"(where --config.init_from takes weights over), or go on all the same with {FLAG}"
        )
    return step, groups, about


def refused(about: Mapping[str, Any], config: ml_collections.ConfigDict) -> list[str]:
    """Returns the settings by which the weights of a checkpoint would mean something else."""
    return [str(change) for change in changes(about, config) if change.meaning == _REFUSED]


def _about(
    checkpoints: checkpoint.Checkpoints, run_dir: epath.PathLike, step: int
) -> dict[str, Any]:
    about = checkpoints.about(step)
    if "config" in about:
        return about
    try:
        config = run_directory.config_at(run_dir, step)
        for name in _NEEDED:
            functools.reduce(operator.getitem, name.split("."), config)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {"config": config}


@dataclasses.dataclass(frozen=True)
class Continuation:
    """How a run goes on.

    Attributes:
      position: records taken before; where the data goes on.
      lines: what differs from the run so far and what it does, one a line; empty if nothing does.
    """

    position: int = 0
    lines: tuple[str, ...] = ()


def of(
    about: Mapping[str, Any],
    config: ml_collections.ConfigDict,
    order: position_lib.Order,
    step: int,
) -> Continuation:
    """Returns how a run goes on from a checkpoint under a config.

    Args:
      about: from `restore`.
      config: of the run from here on.
      order: of the data from here on.
      step: finished updates.
    """
    position, data = _position(about, config, order, step)
    lines = [] if data is None else [f"data: {data}"]
    if "config" not in about:
        lines.append("config.json cannot be read: what differs from the run so far is not known")
        return Continuation(position, tuple(lines))
    found = changes(about, config)
    scheduled = [change for change in found if change.meaning == _SCHEDULE]
    for change in found:
        if change.meaning == _REFUSED:
            lines.append(f"{change}: accepted, the weights have another meaning from here on")
        elif change.meaning not in (_DATA, _SCHEDULE):
            lines.append(f"{change}: {change.meaning}")
    if scheduled:
        rate = _rate(about["config"], run_directory.plain(config), step)
        lines.append(f"{', '.join(map(str, scheduled))}: {_SCHEDULE}{rate}")
    return Continuation(position, tuple(lines))


def _rate(before: Mapping[str, Any], now: Mapping[str, Any], step: int) -> str:
    """Returns what another schedule does to the learning rate of the next update."""
    rates = []
    for config in (before, now):
        fields = ml_collections.ConfigDict(config["optimizer"])
        rates.append(float(optimizer.schedule(fields, config["total_steps"])(step)))
    old, new = (f"{rate:.3g}" for rate in rates)
    does = f"stays {old}" if old == new else f"goes from {old} to {new}"
    return f"; the learning rate at step {step} {does}"


def _position(
    about: Mapping[str, Any],
    config: ml_collections.ConfigDict,
    order: position_lib.Order,
    step: int,
) -> tuple[int, str | None]:
    """Where the data goes on, and why not where it stopped, or in which other files."""
    before = about.get("config", run_directory.plain(config))
    taken = about.get("records", step * before["batch_size"])
    if "order" in about:
        old = position_lib.Order.from_json(about["order"])
    else:
        old = _earlier_order(before, config, order)
    position = position_lib.continued(taken, old, order)
    if old is None:
        return position, (
            f"whether {config.data.dir} holds the records of {before['data']['dir']} cannot be "
            "told without that folder; a new epoch begins"
        )
    place = f"record {taken % old.num_records} of {old.num_records}"
    if not order.has_the_records_of(old):
        why = f"{order.num_records} other records than the {old.num_records} before"
    elif order.seed != old.seed:
        why = f"another order of the records, by seed {old.seed} -> {order.seed}"
    elif order.digest != old.digest:
        return position, f"other files, the same records in the same order; goes on at {place}"
    else:
        return position, None
    return position, f"{why}; a new epoch begins, the last one ends at {place}"


def _earlier_order(
    before: Mapping[str, Any], config: ml_collections.ConfigDict, now: position_lib.Order
) -> position_lib.Order | None:
    """The order that a run of an earlier version had; None if its data is gone."""
    folder, split = before["data"]["dir"], before["data"]["train_split"]
    if (folder, split) == (config.data.dir, config.data.train_split):
        return dataclasses.replace(now, seed=before["seed"])
    try:
        source = pipeline.open_source(folder, split)
        return position_lib.Order.of(folder, split, source, before["seed"])
    except ValueError:
        return None
