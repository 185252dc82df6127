"""Seeded weights and recorded outputs of the metric networks, and how far two arrays differ."""

from collections.abc import Callable, Mapping
import functools
import json
import pathlib
from typing import Any

from flax import nnx
from goldens import fill
import jax
import numpy as np

GOLDENS = pathlib.Path(__file__).parent / "goldens" / "evaluation"
GAIN = np.float32(np.sqrt(2.0))  # of every tensor with two or more axes in the "_g" goldens
NETWORK_LIMIT, FRONT_END_LIMIT = 1e-4, 1e-5  # relative L2: float32 in another order


def golden(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and notes of a golden file."""
    with np.load(GOLDENS / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files if key != "__meta__"}
        return arrays, json.loads(bytes(file["__meta__"]))


@functools.lru_cache(maxsize=1)
def plain(name: str, prefix: str) -> Mapping[str, np.ndarray]:
    """The filled state dict of a network, by official name."""
    keys = json.loads((GOLDENS / f"{name}_keys.json").read_text())
    return {
        key: fill.fill_value(key, shape, prefix)
        if fill.is_filled(key, shape, dtype)
        else np.zeros(shape, dtype)
        for key, (shape, dtype) in keys.items()
    }


def gained(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The state of the "_g" goldens, whose outputs depend on the input far more."""
    return {key: value * GAIN if value.ndim >= 2 else value for key, value in state.items()}


def run(model: nnx.Module, fn: Callable, *args: Any) -> Any:
    """`fn(model, *args)` compiled as one program, its parameters as arguments."""
    graphdef, state = nnx.split(model)
    call = jax.jit(lambda state, *args: fn(nnx.merge(graphdef, state), *args))
    return jax.device_get(call(nnx.to_pure_dict(state), *args))


def distance(got: np.ndarray, want: np.ndarray) -> float:
    """Relative L2 distance; the shapes must agree."""
    assert got.shape == want.shape, (got.shape, want.shape)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))
