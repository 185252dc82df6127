"""Weight-normalised layers of a state dict, folded into plain weights."""

import numpy as np

from foley_jax.interop import spec

# torch's old and new names of a weight's length and direction
_FORMS = (
    (".weight_g", ".weight_v"),
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)


def fold(state: spec.StateDict) -> spec.StateDict:
    """State dict with w = g * v / |v| in place of every pair of length g and direction v.

    The norm is over the axes that g lacks or has with size 1: all but the first by default. A state
    dict without such pairs comes back as it is; so does half a pair, which strict filling then
    names.
    """
    folded = dict(state)
    for length, direction in _FORMS:
        for key in [k for k in folded if k.endswith(length)]:
            layer = key.removesuffix(length)
            if layer + direction not in folded:
                continue
            g = np.asarray(folded.pop(key), np.float64)
            v = np.asarray(folded.pop(layer + direction), np.float64)
            whole = g.ndim != v.ndim
            axes = tuple(axis for axis in range(v.ndim) if whole or g.shape[axis] == 1)
            norm = np.sqrt(np.square(v).sum(axes, keepdims=True))
            folded[layer + ".weight"] = (g * v / norm).astype(np.float32)
    return folded
