"""Strict filling of a module's parameters from a PyTorch state dict; no torch, NumPy only.

Leaf names: weight -> kernel, scale or embedding; running_mean -> mean; running_var -> var.
Layouts: [out, in, *k] -> [*k, in, out]; a kernel axis of size 1 may be absent on one side (a
1x3x3 convolution here is 3x3, a 1x1 convolution a dense layer).
"""

from collections.abc import Iterable, Mapping
import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.layers import torch_checkpoint

_LEAVES = {
    "weight": ("kernel", "scale", "embedding"),
    "running_mean": ("mean",),
    "running_var": ("var",),
}
_ALWAYS_IGNORED = (r"(.*\.)?num_batches_tracked",)  # BatchNorm's step counter; unused by torch too


class ConversionError(ValueError):
    """A checkpoint and a module do not fit; the message lists every key that does not."""


@dataclasses.dataclass
class _Report:
    """What does not fit; raised once, with everything in it."""

    unused: list[str] = dataclasses.field(default_factory=list)
    misshapen: list[str] = dataclasses.field(default_factory=list)
    doubled: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)

    def check(self) -> None:
        titles = {
            "unused": "checkpoint keys without a place in the module",
            "misshapen": "keys whose shape does not fit",
            "doubled": "keys that fill a parameter twice",
            "missing": "parameters that no checkpoint key fills",
        }
        parts = []
        for field, title in titles.items():
            items = getattr(self, field)
            if items:
                parts.append(f"{len(items)} {title}:\n    " + "\n    ".join(items))
        if parts:
            raise ConversionError("the checkpoint does not fit this kind;\n  " + "\n  ".join(parts))


def fill(
    kind: torch_checkpoint.Checkpoint,
    state: Mapping[str, np.ndarray],
    targets: Mapping[str, jax.ShapeDtypeStruct],
) -> dict[str, jax.Array]:
    """Values by our path "a/0/kernel"; complete but for what `kind.init` allows to stay.

    Args:
      kind: names and rules.
      state: official keys -> arrays in PyTorch's layout.
      targets: our paths -> shape and dtype.
    Raises:
      ConversionError: a key without a place, a parameter without a key, or a shape that differs.
    """
    state = {_strip(key, kind.strip): value for key, value in state.items()}
    if kind.prepare is not None:
        state = kind.prepare(state)
    values: dict[str, jax.Array] = {}
    report = _Report()
    for key, array in state.items():
        if _matches(key, (*_ALWAYS_IGNORED, *kind.ignore)):
            continue
        renamed = key
        for pattern, replacement in kind.renames:
            renamed = re.sub(pattern, replacement, renamed)
        path = _target(renamed, targets)
        if path is None:
            report.unused.append(f"{key} {tuple(np.shape(array))}")
        elif path in values:
            report.doubled.append(f"{key} -> {path}")
        else:
            want = targets[path]
            value = _layout(kind, renamed, path, np.asarray(array), want.shape)
            if value.shape != want.shape:
                report.misshapen.append(
                    f"{key} {tuple(np.shape(array))} -> {path} wants {want.shape}"
                )
            values[path] = jnp.asarray(value, want.dtype)
    report.missing = [
        f"{path} {leaf.shape}"
        for path, leaf in targets.items()
        if path not in values and not _matches(path, kind.init)
    ]
    report.check()
    return values


def _strip(key: str, prefixes: Iterable[str]) -> str:
    for prefix in prefixes:
        while key.startswith(prefix):
            key = key[len(prefix) :]
    return key


def _matches(text: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, text) for pattern in patterns)


def _target(key: str, targets: Mapping[str, Any]) -> str | None:
    """Our path of a renamed key: dots to slashes, the leaf by rule."""
    *parents, leaf = key.split(".")
    for name in (*_LEAVES.get(leaf, ()), leaf):
        path = "/".join((*parents, name))
        if path in targets:
            return path
    return None


def _layout(
    kind: torch_checkpoint.Checkpoint,
    key: str,
    path: str,
    array: np.ndarray,
    shape: tuple[int, ...],
) -> np.ndarray:
    """PyTorch's layout to ours: [out, in, *k] -> [*k, in, out] for kernels."""
    for pattern, fn in kind.transforms:
        if re.fullmatch(pattern, key):
            return np.asarray(fn(array))
    if array.ndim < 2 or not path.endswith("kernel"):
        return array
    value = np.moveaxis(array, (0, 1), (-1, -2))
    if value.ndim != len(shape) and value.shape[-2:] == shape[-2:]:
        # a kernel axis of size 1 may be written on one side only
        long = [[n for n in s[:-2] if n != 1] for s in (value.shape, shape)]
        if long[0] == long[1]:
            value = value.reshape(shape)
    return value
