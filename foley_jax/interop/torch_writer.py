"""Our parameters as official PyTorch checkpoints, by the tables that read these.

What reading ignores (tables of the noise schedule, BatchNorm's counters) is not written; PyTorch
fills in the counters itself.
"""

from collections.abc import Mapping
import math
import os
from pathlib import Path
import re
from typing import NamedTuple

import numpy as np
from safetensors import numpy as safetensors_numpy

from foley_jax.interop import fill, official_names, registry, spec, torch_tensors, weight_folders

_PICKLES = (".pt", ".pth", ".ckpt")
ENDINGS = (*_PICKLES, *weight_folders.SAFETENSORS)


class Written(NamedTuple):
    """A state dict, and our paths that have no place in it, as reading initialises them."""

    state: dict[str, np.ndarray]
    left: tuple[str, ...]


def kinds() -> dict[str, spec.Checkpoint]:
    """The kinds of checkpoints that can be written, by name."""
    return {name: kind for name, kind in registry.kinds().items() if kind.writing is not None}


def state_dict(kind: str, leaves: Mapping[str, np.ndarray]) -> Written:
    """Returns parameters under their official names, in PyTorch's layout.

    Args:
      kind: a name of `kinds()`.
      leaves: our path "a/0/kernel" -> array.
    Raises:
      ValueError: as `of_parts`, or a network that the official code does not have.
    """
    written = of_parts(kind, leaves)
    lacking = fill.lacking(kinds()[kind], written.state)
    if lacking:
        raise ValueError(
            f"the network is not that of {kind}: it has no weight that matches {lacking[0]!r}"
        )
    return written


def of_parts(kind: str, leaves: Mapping[str, np.ndarray]) -> Written:
    """Returns the same of a whole network or of some of its parts.

    Raises:
      ValueError: a kind that is not known or cannot be written, or parameters that it has no names
        for, all of which the message lists.
    """
    known = kinds()
    if kind not in known:
        raise ValueError(f"{kind!r} cannot be written; kinds that can: {', '.join(sorted(known))}")
    description = known[kind]
    state, left, nameless = {}, [], []
    for path, leaf in leaves.items():
        if fill.matches(path, description.init):
            left.append(path)
            continue
        try:
            key = official_names.key_of(description, path, leaves)
        except ValueError as error:
            nameless.append(str(error))
        else:
            value = _layout(description, key, path, np.asarray(leaf))
            turned = (
                fn for pattern, fn in description.writing.transforms if re.fullmatch(pattern, key)
            )
            state[key] = next(turned, lambda x: x)(value)
    if nameless:
        raise ValueError(
            f"{len(nameless)} parameters do not fit into a file of {kind}:\n    "
            + "\n    ".join(nameless)
        )
    return Written({key: state[key] for key in sorted(state)}, tuple(left))


def _layout(kind: spec.Checkpoint, key: str, path: str, value: np.ndarray) -> np.ndarray:
    """Our layout to PyTorch's: [*k, in, out] -> [out, in, *k] for kernels."""
    if value.ndim < 2 or not path.endswith("kernel"):
        return value
    value = np.moveaxis(value, (-1, -2), (0, 1))
    axes = next((n for pattern, n in kind.writing.kernel_axes if re.fullmatch(pattern, key)), None)
    if axes is None or value.ndim == 2 + axes:
        return value
    kernel = tuple(n for n in value.shape[2:] if n != 1)
    ones = (1,) * (axes - len(kernel))
    is_time = axes == 3 and len(kernel) == 1
    return value.reshape(value.shape[:2] + (kernel + ones if is_time else ones + kernel))


def write(file: str | os.PathLike, kind: str, leaves: Mapping[str, np.ndarray]) -> Written:
    """Writes parameters as a file that the official code, and `registry.load_torch`, read.

    Args:
      file: new, .pt, .pth or .ckpt with the official container, or .safetensors, which has none.
      kind, leaves: as `state_dict`.
    Raises:
      FileExistsError: the file is there.
      ValueError: another ending, or as `state_dict`.
    """
    path = Path(file)
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path} does not end in one of {', '.join(ENDINGS)}")
    if path.exists():
        raise FileExistsError(f"{path} is there already; name a new file")
    written = state_dict(kind, leaves)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in _PICKLES:
        container = kinds()[kind].writing.container
        torch_tensors.write(path, {container: written.state} if container else written.state)
    else:
        ordered = {key: np.array(value, order="C") for key, value in written.state.items()}
        safetensors_numpy.save_file(ordered, path)
    return written


def size(written: Written) -> int:
    """How many numbers a state dict holds."""
    return sum(math.prod(value.shape) for value in written.state.values())
