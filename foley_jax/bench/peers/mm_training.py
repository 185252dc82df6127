"""MM-Diffusion's training step in torch: noise in both parts, both errors with weight 1."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foley_jax.bench import case
from foley_jax.bench.peers import torch_side, training


def peers(
    module: Any,
    x0: Mapping[str, np.ndarray],
    noise: Mapping[str, np.ndarray],
    t_B: np.ndarray,
    abar_B: np.ndarray,
    shifts: Sequence[int],
    optimizer: Mapping[str, Any],
    *,
    ours: str,
) -> dict[str, case.Peer]:
    """One update.

    Args:
      module: `mm_diffusion.coupled_unet`.
      x0, noise: "video" and "audio", what is noised and by what.
      t_B, abar_B: model times, and the squared shares of the data at these.
      shifts: of the windows.
      optimizer, ours: see `training.step`.
    """
    module = training.trained(torch_side.placed(module))
    x0, noise = ({k: torch_side.tensor(v) for k, v in tree.items()} for tree in (x0, noise))
    t_B, abar_B = torch_side.tensor(t_B), torch_side.tensor(abar_B)

    def loss() -> Any:
        noisy = {}
        for name, x in x0.items():
            abar = abar_B.reshape(-1, *(1,) * (x.ndim - 1))
            noisy[name] = abar.sqrt() * x + (1 - abar).sqrt() * noise[name]
        video, audio = module(noisy["video"], noisy["audio"], t_B, shifts)
        return sum(
            (predicted.float() - noise[name]).square().mean()
            for name, predicted in (("video", video), ("audio", audio))
        )

    return training.step(loss, (module,), optimizer, ours)
