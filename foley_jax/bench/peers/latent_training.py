"""Diff-Foley's second stage in torch: frozen encoder, noise, U-Net and conditioner trained.

B windows, F T mel, H W C latent, L features, D width.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from foley_jax.bench import case
from foley_jax.bench.peers import stable_diffusion, torch_side, training


@dataclasses.dataclass(frozen=True)
class Given:
    """Everything that our step draws, drawn for torch.

    Attributes:
      mel_BFT: log-mels in [0, 1].
      features_BLD: features.
      posterior_BHWC, noise_BHWC: standard normal, of the latent and of the diffusion.
      t_B: model times.
      abar_B: squared share of the data at these.
      latent_scale: of the latents.
    """

    mel_BFT: np.ndarray
    features_BLD: np.ndarray
    posterior_BHWC: np.ndarray
    noise_BHWC: np.ndarray
    t_B: np.ndarray
    abar_B: np.ndarray
    latent_scale: float


def peers(
    state: Mapping[str, np.ndarray],
    model: Mapping[str, Any],
    given: Given,
    optimizer: Mapping[str, Any],
    *,
    ours: str,
) -> dict[str, case.Peer]:
    """One update; arguments as of `latent_sampling.peers` and `training.step`."""
    import torch

    unet = training.trained(stable_diffusion.unet(state, model["unet"]))
    embed = training.trained(stable_diffusion.conditioner(state, "cond_stage_model."))
    vae = stable_diffusion.autoencoder(state, model["autoencoder"])
    channels = model["autoencoder"]["in_channels"]
    mel = torch_side.tensor(given.mel_BFT)[:, None].expand(-1, channels, -1, -1)
    mel = mel.contiguous(memory_format=torch.channels_last)
    features, t_B = torch_side.tensor(given.features_BLD), torch_side.tensor(given.t_B)
    posterior, noise = (torch_side.images(x) for x in (given.posterior_BHWC, given.noise_BHWC))
    abar = torch_side.tensor(given.abar_B)[:, None, None, None]

    def loss() -> Any:
        with torch.no_grad():
            moments = vae.encode(mel, return_dict=False)[0]
            z = given.latent_scale * (moments.mean.float() + moments.std.float() * posterior)
            x = abar.sqrt() * z + (1 - abar).sqrt() * noise
        predicted = unet(x, t_B, embed(features), return_dict=False)[0]
        return (predicted.float() - noise).square().mean()

    return training.step(loss, (unet, embed), optimizer, ours)
