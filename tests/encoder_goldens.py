"""Seeded weights and recorded outputs of Synchformer, PaSST and ImageBind.

Three cases: "" as filled, "_g" with gain, "_e" so small that a wrong epsilon of a norm shows.
"""

from collections.abc import Mapping
import json
import re

from goldens import fill
import network_goldens
import numpy as np

LIMIT = 3e-5  # relative L2: float32 in another order; tanh for erf in GELU gives 1.1e-4
CASES = ("", "_g", "_e")
_SMALL = np.float32(1e-3)
_LOGIT_SCALE = "modality_postprocessors.audio.1.log_logit_scale"


def _is_of_norm(key: str, keys: Mapping[str, tuple]) -> bool:
    """Whether a tensor is the weight or bias of a normalisation."""
    if len(keys[key][0]) != 1 or not key.endswith((".weight", ".bias")):
        return False
    weight = re.sub(r"bias$", "weight", key)
    return weight in keys and len(keys[weight][0]) == 1


def gained(value: np.ndarray) -> np.ndarray:
    """A tensor of the "_g" case from its fill."""
    if value.ndim >= 3 and value.shape[0] == 1:  # tokens, positions, extra keys
        return value * np.float32(0.5 * np.sqrt(np.prod(value.shape[1:])))
    return value * network_goldens.GAIN if value.ndim >= 2 else value


def _scaled(case: str, key: str, value: np.ndarray, keys: Mapping[str, tuple]) -> np.ndarray:
    if case == "_g":
        return gained(value)
    if case == "_e" and not _is_of_norm(key, keys):
        return value * _SMALL
    return value


def state_of(name: str, case: str = "", keep: str = ".*") -> dict[str, np.ndarray]:
    """The state dict of a network by official name, in one of the cases.

    Args:
      keep: a regex; keys that do not fully match it are left out, for a part of a network.
    """
    path = network_goldens.GOLDENS / f"{name}_keys.json"
    keys, prefix = json.loads(path.read_text()), f"public/{name}:"
    state = {}
    for key, (shape, _) in keys.items():
        if re.fullmatch(keep, key):
            value = fill.fill_value(key, shape, prefix) if shape else np.float32(np.log(20.0))
            state[key] = np.asarray(_scaled(case, key, value, keys) if shape else value)
    return state


def pixels(name: str, lead: tuple[int, ...], grid: tuple[int, int], size: int) -> np.ndarray:
    """Blocky images in [0, 1]: [*lead, H, W, 3]."""
    field = fill.structured(name, "public/", (*lead, 3), grid, (size, size))
    return np.moveaxis(field, -3, -1)


def synchformer_segments() -> np.ndarray:
    """The two video segments of Synchformer's goldens, as the network reads them."""
    video = (pixels("synch_video", (24,), (14, 14), 16) - np.float32(0.5)) / np.float32(0.5)
    return np.stack([video[:16], video[8:24]])
