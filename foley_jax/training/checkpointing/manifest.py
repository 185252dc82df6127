"""The table of contents of a checkpoint: shape, dtype and checksum of every leaf."""

from collections.abc import Mapping, Sequence
import json
from typing import Any
import zlib

import jax

from foley_jax.training.checkpointing import checksum

FORMAT = 1
_FIRST_FIELDS = {"format", "step", "leaves", "crc32"}  # all that early ones have


def make(
    step: int,
    groups: Mapping[str, Mapping[str, jax.Array]],
    metrics: Mapping[str, float] | None = None,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns what is written beside the leaves; plain values for JSON.

    On several processes all must call it with the same leaves in the same order.

    Args:
      groups: group -> path -> array.
      metrics: of the evaluation of this very state, if there was one.
      about: more about the run, plain values for JSON.
    """
    leaves = {}
    for name, arrays in groups.items():
        sums = checksum.of_leaves(arrays)
        leaves[name] = {
            key: {"shape": list(x.shape), "dtype": str(x.dtype), "checksum": sums[key]}
            for key, x in arrays.items()
        }
    result = {"format": FORMAT, "step": step, "leaves": leaves, "crc32": _crc32(leaves)}
    if metrics:
        result["metrics"] = {name: float(value) for name, value in metrics.items()}
    if about:
        result["about"] = json.loads(json.dumps(about))  # as it will be read
    return {**result, "crc32_rest": _crc32(_rest(result))}


def is_intact(manifest: Any) -> bool:
    """Whether a manifest is what was written; of those before `about` the list of leaves alone."""
    if not isinstance(manifest, Mapping) or not set(manifest) >= _FIRST_FIELDS:
        return False
    if manifest["crc32"] != _crc32(manifest["leaves"]):
        return False
    if set(manifest) <= _FIRST_FIELDS | {"metrics"}:
        return True
    return manifest.get("crc32_rest") == _crc32(_rest(manifest))


def _rest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in manifest.items() if k not in ("leaves", "crc32", "crc32_rest")}


def _crc32(part: Any) -> int:
    return zlib.crc32(json.dumps(part, sort_keys=True).encode())


def differences(
    saved: Mapping[str, Mapping[str, Mapping]],
    wanted: Mapping[str, Mapping[str, jax.ShapeDtypeStruct]],
    names: Sequence[str],
    *,
    strict: bool,
) -> list[str]:
    """Lines about leaves that are missing or of another shape or dtype; of the groups `names`.

    Args:
      saved: leaves of a manifest.
      wanted: group -> path -> what is to be read.
      strict: leaves that nobody wants are named too.
    """
    problems = []
    for name in names:
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
