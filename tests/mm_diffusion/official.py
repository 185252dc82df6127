"""Goldens of MM-Diffusion, and modules that hold the official (seeded) weights."""

from collections.abc import Callable, Mapping
import functools
import json
import pathlib

from flax import nnx
from goldens import fill
import ml_collections
import numpy as np

from foley_jax.interop import registry, spec
from foley_jax.mm_diffusion import weights

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "mm_diffusion"
PREFIX = "public/"
TINY = {"model_channels": 32, "head_channels": 32}
VIDEO_HEAD, AUDIO_HEAD = "video_out.2.video_conv", "audio_out.2.audio_conv"


@functools.cache
def golden(name: str) -> tuple[Mapping[str, np.ndarray], dict]:
    """Arrays and the meta document of one file."""
    with np.load(GOLDENS / f"{name}.npz") as file:
        arrays = dict(file)
    return arrays, json.loads(bytes(arrays.pop("__meta__")).decode())


def shifts(run: str, file: str) -> np.ndarray:
    """int32 shifts of a run of a U-Net golden, without the middle block, which has none."""
    blocks = golden(file)[1]["runs"][run]["shifts"]
    return np.array([shift for _, _, shifted, shift in blocks if shifted], np.int32)


def inputs(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Input of a golden in PyTorch's layout (channels before H W, or before L), ours returned."""
    return channels_last(fill.inp(name, shape, PREFIX))


def channels_last(x: np.ndarray) -> np.ndarray:
    """[B, F, C, H, W] or [B, C, L] -> [B, F, H, W, C] or [B, L, C]."""
    return np.moveaxis(x, -3 if x.ndim == 5 else 1, -1)


def state(file: str, prefix: str) -> dict[str, np.ndarray]:
    """Official state dict of a key list, filled by the goldens' rule."""
    keys = json.loads((GOLDENS / f"{file}.json").read_text())
    return {key: fill.fill_value(key, shape, prefix) for key, (shape, _) in keys.items()}


class _Holder(nnx.Module):
    """`part`, under the name that its official `place` is renamed to."""

    def __init__(self, name: str, build: Callable, rngs: nnx.Rngs):
        setattr(self, name, build(rngs=rngs))


def part(
    build: Callable,
    keys: Mapping[str, list[int]],
    prefix: str,
    place: tuple[str, str] = ("", "part"),
    model: str = "mm_diffusion/base",
) -> nnx.Module:
    """One block with official weights, through the converter and the names of the whole model.

    `place`: where the network has such a block, as the official code names it and as we do;
    `model`: the kind whose block it is.
    """
    theirs, ours = place
    kind = spec.Checkpoint(
        build=lambda model, *, rngs: _Holder(ours, build, rngs),
        model=ml_collections.ConfigDict(),
        renames=(
            (r"^", f".{theirs or 'part.'}"),
            *weights.KINDS[model].renames,
            (r"^\.", ""),
        ),
    )
    values = {k: fill.fill_value(k, shape, prefix) for k, shape in keys.items()}
    return getattr(registry._module(kind, values, {}, False)[0], ours)


def tiny() -> nnx.Module:
    """The tiny U-Net of the goldens."""
    values = state("tiny_keys", PREFIX + "tiny:")
    return registry.from_state_dict("mm_diffusion/base", values, **TINY)
