"""Tests what the full-size parity tests share.

Seeded weights, one compiled call, torch's layout.
"""

from collections.abc import Callable
import json
import pathlib
from typing import Any

from flax import nnx
from goldens import fill
import jax
import numpy as np

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "diff_foley"
PREFIX = "public/"


def state(name: str) -> dict[str, np.ndarray]:
    """The seeded state dict of one of Diff-Foley's networks, by official name."""
    keys = json.loads((GOLDENS / f"{name}_keys.json").read_text())
    return {
        key: fill.fill_value(key, shape, PREFIX)
        if fill.is_filled(key, shape, dtype)
        else np.full(shape, 0.18215 if key == "scale_factor" else 0, dtype)
        for key, (shape, dtype) in keys.items()
    }


def jitted(model: nnx.Module, fn: Callable, *args: Any) -> Any:
    """`fn(model, *args)` as one compiled program, on the host."""
    graphdef, arrays = nnx.split(model)
    run = jax.jit(lambda arrays, *args: fn(nnx.merge(graphdef, arrays), *args))
    return jax.device_get(run(nnx.to_pure_dict(arrays), *args))


def last(x: np.ndarray) -> np.ndarray:
    """Channels last: [B, C, H, W] -> [B, H, W, C]."""
    return np.moveaxis(x, 1, -1)


def first(x: np.ndarray) -> np.ndarray:
    """Channels first: [B, H, W, C] -> [B, C, H, W]."""
    return np.moveaxis(x, -1, 1)
