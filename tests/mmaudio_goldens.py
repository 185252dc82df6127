"""Seeded weights and recorded outputs of MMAudio's networks, and how far two arrays differ."""

from collections.abc import Callable, Mapping
import functools
import json
import pathlib
from typing import Any

import filled
from flax import nnx
from goldens import fill
import jax
import numpy as np

from foley_jax.interop import registry

GOLDENS = pathlib.Path(__file__).parent / "goldens" / "mmaudio"
PREFIX = "public/"
GAIN = 0.25  # of every `learnable_gain`, as the goldens were made
# of the small networks beside the fields of the released ones
TINY = {
    "latent_dim": 8,
    "clip_dim": 16,
    "sync_dim": 24,
    "text_dim": 16,
    "width": 64,
    "num_heads": 2,
    "depth": 4,
    "fused_depth": 2,
    "text_length": 11,
}
LENGTHS = {"clip_length": 8, "sync_length": 16}


def golden(name: str) -> dict[str, np.ndarray]:
    """Arrays of a golden file."""
    with np.load(GOLDENS / f"{name}.npz") as file:
        return {key: file[key] for key in file.files if key != "__meta__"}


def state(keys: str, tag: str, folder: pathlib.Path = GOLDENS) -> dict[str, np.ndarray]:
    """The seeded state dict of `keys`_keys.json, filled under "public/mmaudio/TAG/"."""
    named = json.loads((folder / f"{keys}_keys.json").read_text())
    return filled_state(named, tag)


def filled_state(named: Mapping[str, tuple], tag: str) -> dict[str, np.ndarray]:
    """`state` of keys -> [shape, dtype]."""
    made = {}
    for key, (shape, _) in named.items():
        if key.endswith("learnable_gain"):
            made[key] = np.float32(GAIN)
        else:
            made[key] = fill.fill_value(key, shape, f"{PREFIX}mmaudio/{tag}/")
    return made


def inp(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A seeded input by its name."""
    return fill.inp(f"mmaudio_{name}", shape, PREFIX)


@functools.cache
def tiny(name: str) -> nnx.Module:
    """The small flow network "tiny" or "tiny_v2"."""
    return tiny_of(name, state(name, name))


def tiny_of(name: str, state: Mapping[str, np.ndarray]) -> nnx.Module:
    """The small flow network of other official weights."""
    kind = "mmaudio/large_44k_v2" if name == "tiny_v2" else "mmaudio/small_16k"
    return registry.from_state_dict(kind, state, **TINY)


def tiny_inputs(name: str) -> dict[str, np.ndarray]:
    """Its inputs: latent, clip, sync, text, negative, t."""
    made = {
        "latent": inp(f"{name}_latent", (3, 20, 8)),
        "clip": fill.unit_rows(inp(f"{name}_clip", (3, 8, 16))),
        "sync": inp(f"{name}_sync", (3, 16, 24)),
        "text": fill.unit_rows(inp(f"{name}_text", (3, 11, 16))),
        "negative": fill.unit_rows(inp(f"{name}_negative", (3, 11, 16))),
    }
    return {**made, "t": np.asarray([0.05, 0.5, 0.95], np.float32)}


def run(model: nnx.Module, fn: Callable, *args: Any) -> Any:
    """`fn(model, *args)` compiled as one program, its parameters as arguments."""
    graphdef, arrays = nnx.split(model)
    call = filled.jit(lambda arrays, *args: fn(nnx.merge(graphdef, arrays), *args))
    return jax.device_get(call(nnx.to_pure_dict(arrays), *args))


def distance(got: np.ndarray, want: np.ndarray) -> float:
    """Relative L2 distance; the shapes must agree."""
    assert got.shape == want.shape, (got.shape, want.shape)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))
