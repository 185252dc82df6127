"""Strict filling of a module's parameters from a PyTorch state dict; no torch, NumPy only.

Leaf names: weight -> kernel, scale or embedding; running_mean -> mean; running_var -> var.
Layouts: [out, in, *k] -> [*k, in, out]; a kernel axis of size 1 may be absent on one side (a
1x3x3 convolution here is 3x3, a 1x1 convolution a dense layer).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.interop import spec, weight_norm, wrappers

# leaf of PyTorch -> our leaves that it may be
LEAVES = {
    "weight": ("kernel", "scale", "embedding"),
    "running_mean": ("mean",),
    "running_var": ("var",),
}
_ALWAYS_IGNORED = (
    (r"(.*\.)?num_batches_tracked", "BatchNorm's step counter, unused by torch too"),
    (r"n_averaged", "AveragedModel's step counter"),
)


class ConversionError(ValueError):
    """A checkpoint and a module do not fit; the message lists every key that does not."""


@dataclasses.dataclass(frozen=True)
class Filled:
    """Outcome of filling from a state dict.

    Attributes:
      values: our path "a/0/kernel" -> value.
      loaded: checkpoint key -> our path.
      ignored: checkpoint key -> why it is not used.
      initialised: our paths that no key fills and that may stay as initialised.
      notes: what was changed on the way, a line each: names of wrappers stripped, shapes taken
        another way, values that are not finite.
    """

    values: Mapping[str, jax.Array]
    loaded: Mapping[str, str]
    ignored: Mapping[str, str]
    initialised: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass
class _Misfits:
    """Raised once, with everything in it that does not fit."""

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
    kind: spec.Checkpoint,
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
    state, notes = _prepared(kind, state, targets, averaged)
    values: dict[str, jax.Array] = {}
    loaded, ignored, misfits = {}, {}, _Misfits()
    for key, array in state.items():
        reason = reason_of(kind, key)
        if reason is not None:
            ignored[key] = reason
            continue
        renamed = renamed_key(kind, key)
        path = path_of(renamed, targets)
        if path is None:
            misfits.unused.append(f"{key} {tuple(np.shape(array))}")
        elif path in values:
            misfits.doubled.append(f"{key} -> {path}")
        else:
            want = targets[path]
            array = np.asarray(array)
            value = _layout(kind, renamed, path, array, want.shape)
            if value.shape != want.shape and value.size == 1 == math.prod(want.shape):
                notes.append(f"{key}: one number of shape {array.shape} taken as {want.shape}")
                value = value.reshape(want.shape)
            if value.shape != want.shape:
                misfits.misshapen.append(f"{key} {array.shape} -> {path} wants {want.shape}")
            elif not _is_number_for(value, want.dtype):
                misfits.misshapen.append(
                    f"{key} {array.shape} of {array.dtype} -> {path} wants {want.dtype} (quantised "
                    "weights? save them in float32)"
                )
            elif not np.isfinite(value).all():
                notes.append(f"{key} holds values that are not finite")
            values[path], loaded[key] = jnp.asarray(value, want.dtype), path
    left = [path for path in targets if path not in values]
    misfits.missing = [
        f"{path} {targets[path].shape}" for path in left if not matches(path, kind.init)
    ]
    misfits.check()
    return Filled(values, loaded, ignored, tuple(left), tuple(notes))


def _is_number_for(value: np.ndarray, dtype: Any) -> bool:
    """Whether values may be cast: not whole rows of integers, which stand for scaled numbers."""
    if not jnp.issubdtype(dtype, jnp.floating):
        return True
    is_float = jnp.issubdtype(value.dtype, jnp.floating)
    return is_float or (jnp.issubdtype(value.dtype, jnp.integer) and value.size == 1)


def _prepared(
    kind: spec.Checkpoint,
    state: Mapping[str, np.ndarray],
    targets: Mapping[str, Any],
    averaged: bool,
) -> tuple[Mapping[str, np.ndarray], list[str]]:
    """Without wrappers, with averages where asked for, rewritten by the kind; and notes."""
    bare, notes = wrappers.unwrap(state, kind.strip)
    twice = sorted(name for name, count in Counter(bare.values()).items() if count > 1)
    if twice:
        raise ConversionError(
            f"{len(twice)} keys are there twice, with and without the names of wrappers: "
            + ", ".join(twice[:3])
        )
    state = {bare[key]: value for key, value in state.items()}
    last, averages, front = wrappers.split_averages(state)
    if averages is not None:
        state = averages if averaged else last
        taken = "averaged copies taken" if averaged else "averaged copies left (--ema takes them)"
        notes.append(f"{front!r}: {taken}")
    elif averaged:
        if kind.averaged is None:
            raise ValueError("files of this kind hold no averaged (EMA) weights; leave --ema out")
        state = kind.averaged(state)
    state = _rewritten(kind, state)
    homeless = _num_homeless(kind, state, targets)
    for front in wrappers.fronts(state) if homeless else ():
        inner = _rewritten(kind, _without(front, state))
        if _num_homeless(kind, inner, targets) < homeless:
            count = sum(key.startswith(front) for key in state)
            return inner, [*notes, f"stripped {front!r} from {count} keys"]
    return state, notes


def _rewritten(kind: spec.Checkpoint, state: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    state = weight_norm.fold(state)
    return state if kind.prepare is None else kind.prepare(state)


def _without(front: str, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keys without a front; all as they are if one of them would then be there twice."""
    inner = {key.removeprefix(front): value for key, value in state.items()}
    return inner if len(inner) == len(state) else state


def _num_homeless(kind: spec.Checkpoint, keys: Iterable[str], targets: Mapping[str, Any]) -> int:
    """How many keys have no place in the module and no reason to be left out."""
    return sum(
        reason_of(kind, key) is None and path_of(renamed_key(kind, key), targets) is None
        for key in keys
    )


def reason_of(kind: spec.Checkpoint, key: str) -> str | None:
    """Returns why a checkpoint key is not used; None if it is."""
    return _reason(key, (*_ALWAYS_IGNORED, *kind.ignore))


def renamed_key(kind: spec.Checkpoint, key: str) -> str:
    """Returns a checkpoint key after the kind's renames: our path with dots, but for the leaf."""
    for pattern, replacement in kind.renames:
        key = re.sub(pattern, replacement, key)
    return key


def _reason(key: str, ignore: Iterable[str | tuple[str, str]]) -> str | None:
    for rule in ignore:
        pattern, reason = (rule, f"ignored by {rule}") if isinstance(rule, str) else rule
        if re.fullmatch(pattern, key):
            return reason
    return None


def has_signature(kind: spec.Checkpoint, keys: Iterable[str], *, outer: bool = False) -> bool:
    """Whether every regex of the kind's signature fully matches some key.

    Args:
      kind: of checkpoint.
      keys: as the file has them; the names of wrappers do not count.
      outer: also without one of `wrappers.fronts`.
    """
    bare = list(wrappers.unwrap(keys, kind.strip)[0].values())
    for front in ("", *(wrappers.fronts(bare) if outer else ())):
        if not lacking(kind, [key.removeprefix(front) for key in bare]):
            return True
    return False


def lacking(kind: spec.Checkpoint, keys: Collection[str]) -> list[str]:
    """Returns the regexes of the kind's signature that no key fully matches."""
    return [mark for mark in kind.signature if not any(re.fullmatch(mark, key) for key in keys)]


def matches(text: str, patterns: Iterable[str]) -> bool:
    """Whether a text fully matches one of some regexes."""
    return any(re.fullmatch(pattern, text) for pattern in patterns)


def path_of(key: str, targets: Mapping[str, Any]) -> str | None:
    """Returns our path of a renamed key, dots to slashes and the leaf by rule; None without one."""
    *parents, leaf = key.split(".")
    for name in (*LEAVES.get(leaf, ()), leaf):
        path = "/".join((*parents, name))
        if path in targets:
            return path
    return None


def _layout(
    kind: spec.Checkpoint,
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
