"""Parts of other runs as a start: `config.init_from = {"our/path": "RUN_DIR:their/path"}`."""

from collections.abc import Mapping
from typing import Any

import jax

from foley_jax.layers import lora
from foley_jax.training import paths
from foley_jax.training.checkpointing import run_directory


def load(init_from: Mapping[str, str], abstract: Any) -> dict[str, jax.Array]:
    """Reads every part that `init_from` names.

    Averaged (EMA) parameters are taken where the other run has them. Both subtrees must have the
    same leaves and shapes.

    Args:
      init_from: path in our model -> "RUN_DIR:path in that run's model"; "RUN_DIR:" takes the
        same path, "RUN_DIR:." that whole model. A path is a subtree or a leaf, e.g. "unet" or
        "autoencoder/decoder".
      abstract: pair (params, rest) of ShapeDtypeStructs with shardings.
    Returns:
      Path of each replaced leaf -> array, placed as `abstract` says.
    Raises:
      FileNotFoundError: the other run has no checkpoint; the message says how to make one.
      ValueError: unknown path, or the subtrees differ.
    """
    ours = {key: leaf for tree in abstract for key, leaf in paths.flatten(tree).items()}
    grafts: dict[str, jax.Array] = {}
    for path, source in init_from.items():
        run_dir, colon, their_path = str(source).rpartition(":")
        if not colon:
            raise ValueError(
                f"config.init_from.{path} is {source!r}, expected 'RUN_DIR:path', "
                f"e.g. 'runs/other:{path}'"
            )
        grafts.update(_load_part(path, run_dir, their_path or path, ours))
    return grafts


def _load_part(
    path: str, run_dir: str, their_path: str, ours: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, jax.Array]:
    theirs = run_directory.leaf_shapes(run_dir)
    mine = _under(path, ours)
    if not mine:
        raise ValueError(f"config.init_from.{path}: the model has no part {path!r}")
    available = _under(their_path, theirs)
    if not any(map(lora.is_adapter, available.values())):  # ours are new
        mine = {part: key for part, key in mine.items() if not lora.is_adapter(key)}
    label = f"config.init_from.{path}={run_dir}:{their_path}"
    if not available:
        parts = sorted({key.split("/")[0] for key in theirs})
        raise ValueError(f"{label}: that run has no part {their_path!r}; parts: {', '.join(parts)}")
    problems = [f"{path}{key}: only in ours" for key in sorted(set(mine) - set(available))]
    problems += [f"{path}{key}: only in theirs" for key in sorted(set(available) - set(mine))]
    problems += [
        f"{path}{key}: {theirs[available[key]]} in theirs, {ours[mine[key]].shape} in ours"
        for key in sorted(set(mine) & set(available))
        if tuple(theirs[available[key]]) != tuple(ours[mine[key]].shape)
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"{label} does not fit: {'; '.join(problems[:5])}{more}")
    shardings = {available[key]: ours[mine[key]].sharding for key in mine}
    groups = run_directory.read_groups(run_dir, shardings=shardings)
    leaves = {**groups["params"], **groups["rest"]}
    return {mine[key]: leaves[available[key]].astype(ours[mine[key]].dtype) for key in mine}


def _under(path: str, leaves: Mapping[str, Any]) -> dict[str, str]:
    """What follows `path` -> whole key, for the leaf or the subtree at `path`; "." is all."""
    if path == ".":
        return {f"/{key}": key for key in leaves}
    return {key[len(path) :]: key for key in leaves if key == path or key.startswith(path + "/")}
