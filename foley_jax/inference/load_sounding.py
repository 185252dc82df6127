"""MM-Diffusion's networks: the coupled U-Net, and maybe the super-resolution."""

import os

from foley_jax.inference import networks
from foley_jax.mm_diffusion.sampling import pipeline
from foley_jax.runtime import mesh as mesh_lib

STAGE, UPSCALING = "mm_diffusion", "mm_super_resolution"


def load(
    model: str | os.PathLike,
    *,
    super_resolution: str | os.PathLike | None = None,
    dtype: str | None = None,
    devices: int | None = None,
) -> pipeline.MMDiffusion:
    """Loads the networks of MM-Diffusion.

    Args:
      model: workdir of an `mm_diffusion` run or of the converted base model, or its file.
      super_resolution: the same of an `mm_super_resolution` run; by default images stay small.
      dtype: compute type; see `load_foley.load`.
      devices: of this process that share the work; see `mesh_lib.local_mesh`.
    Raises:
      FileNotFoundError: no checkpoint there; the message says how to make one.
      ValueError: another stage, or networks whose video sizes do not fit together.
    """
    mesh = mesh_lib.local_mesh(devices)
    base = networks.part(model, STAGE, dtype)
    if super_resolution is None:
        return pipeline.MMDiffusion(base.network, base.config, mesh=mesh)
    large = networks.part(super_resolution, UPSCALING, dtype)
    has = (base.config.video.height, base.config.video.width)
    low = large.config.data.degradation
    if (low.height, low.width) != has:
        raise ValueError(
            f"{super_resolution} enlarges images of {low.height}x{low.width}, the model makes "
            f"{has[0]}x{has[1]}; train one for that size (config.data.degradation)"
        )
    return pipeline.MMDiffusion(
        base.network,
        base.config,
        upscaler=large.network,
        upscaler_config=large.config,
        mesh=mesh,
    )
