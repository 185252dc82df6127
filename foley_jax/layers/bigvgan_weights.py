"""Public BigVGAN checkpoints: names only.

`bigvgan` is bigvgan_v2_22khz_80band_256x; `bigvgan/NAME` any public generator of
`bigvgan.CONFIGS`. Files are bigvgan_generator.pt or g_05000000: {"generator": state dict}.
"""

import functools

import numpy as np

from foley_jax.layers import bigvgan, torch_checkpoint

# torch's old and new names of a weight's length and direction
_FORMS = (
    (".weight_g", ".weight_v"),
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)


def fold_weight_norm(state: torch_checkpoint.StateDict) -> torch_checkpoint.StateDict:
    """Weights of weight-normalised layers: w = g * v / |v|, the norm over all axes but the first.

    A state dict whose weight norm was removed comes back as it is; so does half a pair, which
    strict filling then names.
    """
    folded = dict(state)
    for length, direction in _FORMS:
        for key in [k for k in folded if k.endswith(length)]:
            layer = key.removesuffix(length)
            if layer + direction not in folded:
                continue
            g = np.asarray(folded.pop(key), np.float64)
            v = np.asarray(folded.pop(layer + direction), np.float64)
            norm = np.sqrt(np.square(v).sum(tuple(range(1, v.ndim)), keepdims=True))
            folded[layer + ".weight"] = (g * v / norm).astype(np.float32)
    return folded


def _kind(name: str) -> torch_checkpoint.Checkpoint:
    return torch_checkpoint.Checkpoint(
        build=bigvgan.from_config,
        model=bigvgan.CONFIGS[name],
        renames=(
            (r"\.upsample\.filter$", ".up_filter"),
            (r"\.downsample\.lowpass\.filter$", ".down_filter"),
        ),
        transforms=((r".*_filter", functools.partial(np.reshape, shape=-1)),),
        containers=("generator", "state_dict"),
        prepare=fold_weight_norm,
    )


KINDS = {
    "bigvgan": _kind("bigvgan_v2_22khz_80band_256x"),
    **{f"bigvgan/{name.removeprefix('bigvgan_')}": _kind(name) for name in bigvgan.CONFIGS},
}
