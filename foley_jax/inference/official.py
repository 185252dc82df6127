"""Official weights as runs of ours, with the config that the paper's stage would have, and back."""

import importlib
import os
from typing import Any, NamedTuple

from flax import nnx
import ml_collections
import numpy as np

from foley_jax.interop import registry, torch_writer
from foley_jax.training import task as task_lib


def run_config(kind: str, **model_overrides: Any) -> ml_collections.ConfigDict:
    """Config saved beside converted weights: the paper's stage with this model, or the model."""
    description = registry.lookup(kind)
    model = registry.model_config(description, model_overrides)
    if not description.stage:
        return ml_collections.ConfigDict({"model": model})
    stage, _, variant = description.stage.partition(":")
    config = importlib.import_module(f"configs.{stage}").get_config(variant)
    config.model = model
    return config


def save(kind: str, module: nnx.Module, folder: str | os.PathLike, **model_overrides: Any) -> None:
    """Writes a converted module as a folder that training, sampling and grafts can read."""
    from foley_jax.training.checkpointing import run_directory  # orbax takes seconds to import

    config = run_config(kind, **model_overrides)
    trainable = task_lib.resolve(config).trainable if "task" in config else nnx.Param
    _, params, rest = nnx.split(module, trainable, ...)
    run_directory.save_model(
        folder,
        config=config,
        params=nnx.to_pure_dict(params),
        rest=nnx.to_pure_dict(rest),
        kind=kind,
    )


class Returned(NamedTuple):
    """A run under official names.

    Attributes:
      kind: of the checkpoint.
      written: what is in the file, and what has no place there.
      remarks: what is to be known of the latter, a line each.
    """

    kind: str
    written: torch_writer.Written
    remarks: tuple[str, ...]


def to_torch(run: str | os.PathLike, file: str | os.PathLike, kind: str | None = None) -> Returned:
    """Writes the model of a run, EMA parameters if there are any, as an official checkpoint.

    Args:
      run: workdir of a run, or a folder that was converted or exported.
      file: new; see `torch_writer.write`.
      kind: a name of `torch_writer.kinds()` or its last part; by default what the run was converted
        from, or the official kind of its stage that has a place for all of it.
    Raises:
      OSError: no run, or the file is there.
      ValueError: no such kind, or parameters without a place in it.
    """
    from foley_jax.training.checkpointing import run_directory

    config, groups = run_directory.load_config(run), run_directory.read_groups(run)
    leaves = {path: np.asarray(leaf) for group in groups.values() for path, leaf in group.items()}
    written, errors = None, []
    candidates = _kinds(config, kind)
    for name in candidates:
        try:
            written = torch_writer.write(file, name, leaves)
        except ValueError as error:
            errors.append(str(error))
        else:
            break
    if written is None:
        raise ValueError("\n".join(errors))
    remarks = [
        f"{path} = {leaves[path]} is not in the file; official code has it in its config"
        if leaves[path].ndim == 0
        else f"{path} has no place in the file"
        for path in written.left
    ]
    return Returned(name, written, tuple(remarks))


def _kinds(config: ml_collections.ConfigDict, wanted: str | None) -> list[str]:
    """The kinds of checkpoint that a run may be written as, best first."""
    known = torch_writer.kinds()
    if wanted is not None:
        found = [name for name in known if wanted in (name, name.partition("/")[2])]
    elif config.get("kind") in known:
        found = [config.kind]
    else:
        task = config.get("task")
        found = [name for name, kind in known.items() if kind.stage.partition(":")[0] == task]
    if not found:
        what = f"kind {wanted!r}" if wanted else f"stage {config.get('task')!r}"
        raise ValueError(
            f"no official file for {what}; kinds that can be written: {', '.join(sorted(known))}"
        )
    return found
