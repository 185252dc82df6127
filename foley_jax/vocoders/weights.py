"""Public BigVGAN checkpoints: names only.

`bigvgan` is bigvgan_v2_22khz_80band_256x; `bigvgan/NAME` any public generator of
`bigvgan.CONFIGS`. Files are bigvgan_generator.pt or g_05000000: {"generator": state dict}.
"""

import functools

import numpy as np

from foley_jax.interop import spec
from foley_jax.vocoders import bigvgan

# official names of the buffers of both filters -> ours
FILTERS = (
    (r"\.upsample\.filter$", ".up_filter"),
    (r"\.downsample\.lowpass\.filter$", ".down_filter"),
)


def _kind(name: str) -> spec.Checkpoint:
    return spec.Checkpoint(
        build=bigvgan.from_config,
        model=bigvgan.CONFIGS[name],
        renames=FILTERS,
        transforms=((r".*_filter", functools.partial(np.reshape, shape=-1)),),
        containers=("generator", "state_dict"),
    )


KINDS = {
    "bigvgan": _kind("bigvgan_v2_22khz_80band_256x"),
    **{f"bigvgan/{name.removeprefix('bigvgan_')}": _kind(name) for name in bigvgan.CONFIGS},
}
