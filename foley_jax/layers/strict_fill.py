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
_ALWAYS_IGNORED = (
    (r"(.*\.)?num_batches_tracked", "BatchNorm's step counter, unused by torch too"),
)


class ConversionError(ValueError):
    """A checkpoint and a module do not fit; the message lists every key that does not."""


@dataclasses.dataclass(frozen=True)
class Filled:
    """What a state dict gave.

    Attributes:
      values: our path "a/0/kernel" -> value.
      loaded: checkpoint key -> our path.
      ignored: checkpoint key -> why it is not used.
      initialised: our paths that no key fills and that may stay as initialised.
    """

    values: Mapping[str, jax.Array]
    loaded: Mapping[str, str]
    ignored: Mapping[str, str]
    initialised: tuple[str, ...]


@dataclasses.dataclass
class _Misfits:
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
    *,
    averaged: bool = False,
) -> Filled:
    """Values by our path; complete but for what `kind.init` allows to stay.

    Args:
      kind: names and rules.
      state: official keys -> arrays in PyTorch's layout.
      targets: our paths -> shape and dtype.
      averaged: take the averaged (EMA) weights.
    Raises:
      ConversionError: a key without a place, a parameter without a key, or a shape that differs.
      ValueError: averages are wanted and this kind, or this state dict, has none.
    """
    state = _prepared(kind, state, averaged)
    values: dict[str, jax.Array] = {}
    loaded, ignored, misfits = {}, {}, _Misfits()
    for key, array in state.items():
        reason = _reason(key, (*_ALWAYS_IGNORED, *kind.ignore))
        if reason is not None:
            ignored[key] = reason
            continue
        renamed = key
        for pattern, replacement in kind.renames:
            renamed = re.sub(pattern, replacement, renamed)
        path = _target(renamed, targets)
        if path is None:
            misfits.unused.append(f"{key} {tuple(np.shape(array))}")
        elif path in values:
            misfits.doubled.append(f"{key} -> {path}")
        else:
            want = targets[path]
            value = _layout(kind, renamed, path, np.asarray(array), want.shape)
            if value.shape != want.shape:
                misfits.misshapen.append(
                    f"{key} {tuple(np.shape(array))} -> {path} wants {want.shape}"
                )
            values[path], loaded[key] = jnp.asarray(value, want.dtype), path
    left = [path for path in targets if path not in values]
    misfits.missing = [
        f"{path} {targets[path].shape}" for path in left if not _matches(path, kind.init)
    ]
    misfits.check()
    return Filled(values, loaded, ignored, tuple(left))


def _prepared(
    kind: torch_checkpoint.Checkpoint, state: Mapping[str, np.ndarray], averaged: bool
) -> Mapping[str, np.ndarray]:
    """Without prefixes, with averages where asked for, rewritten by the kind."""
    state = {_strip(key, kind.strip): value for key, value in state.items()}
    if averaged:
        if kind.averaged is None:
            raise ValueError("files of this kind hold no averaged (EMA) weights; leave --ema out")
        state = kind.averaged(state)
    return state if kind.prepare is None else kind.prepare(state)


def _reason(key: str, ignore: Iterable[str | tuple[str, str]]) -> str | None:
    """Why a key is not used; None if it is."""
    for rule in ignore:
        pattern, reason = (rule, f"ignored by {rule}") if isinstance(rule, str) else rule
        if re.fullmatch(pattern, key):
            return reason
    return None


def has_signature(kind: torch_checkpoint.Checkpoint, keys: Iterable[str]) -> bool:
    """Whether every regex of the kind's signature fully matches some key."""
    bare = [_strip(key, kind.strip) for key in keys]
    return all(any(re.fullmatch(mark, key) for key in bare) for mark in kind.signature)


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
