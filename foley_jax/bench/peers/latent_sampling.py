"""Diff-Foley's sampling in torch: DPM-Solver++ with guidance, decoding, Griffin-Lim.

B windows, H V C latent rows, columns, channels, L features, D width.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from foley_jax.bench import case
from foley_jax.bench.peers import solvers, stable_diffusion, torch_side, vocoder


@dataclasses.dataclass(frozen=True)
class Given:
    """Inputs that both sides start from.

    Attributes:
      x_BHVC: standard normal.
      features_BLD: features.
      times, alpha, sigma: of the solver, [N + 1].
      guidance, alignment: scales.
    """

    x_BHVC: np.ndarray
    features_BLD: np.ndarray
    times: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray
    guidance: float
    alignment: float


@dataclasses.dataclass(frozen=True)
class Audio:
    """How mels become audio, see `griffin_lim.audio_of_log_mel`."""

    basis_FK: np.ndarray
    n_fft: int
    hop: int
    inversion: int
    iterations: int


def peers(
    state: Mapping[str, np.ndarray],
    model: Mapping[str, Any],
    guide_state: Mapping[str, np.ndarray] | None,
    guide: Mapping[str, Any],
    given: Given,
    audio: Audio,
    *,
    ours: str,
) -> dict[str, case.Peer]:
    """Eager torch, and on a GPU with the U-Net and the decoder compiled as well.

    Args:
      state, model: official state dict and `config.model` of latent diffusion.
      guide_state, guide: the same of the guidance classifier; None for guidance without it.
    """
    import torch

    unet = stable_diffusion.unet(state, model["unet"], ours=ours)
    vae = stable_diffusion.autoencoder(state, model["autoencoder"], ours=ours)
    networks = {"torch": (unet, vae)}
    if torch_side.device().type == "cuda":
        networks["torch.compile"] = (torch.compile(unet), torch.compile(vae.decode))
    classifier = None
    if guide_state is not None:
        classifier = stable_diffusion.alignment(guide_state, guide, ours=ours)
    made = {}
    for name, (unet, vae) in networks.items():
        sampler = _Sampler(unet, vae, state, model, classifier, given, audio, ours)
        made[name] = torch_side.peer(
            sampler.run, lambda output: torch_side.array(output[0]), training=True
        )
    return made


class _Sampler:
    def __init__(self, unet, vae, state, model, classifier, given: Given, audio: Audio, ours: str):
        self.unet, self.vae, self.classifier = unet, vae, classifier
        self.given, self.audio, self.dtype = given, audio, torch_side.dtype(ours)
        self.scale = model["latent_scale"]
        features = torch_side.tensor(given.features_BLD, ours=ours)
        embed = stable_diffusion.conditioner(state, "cond_stage_model.", ours=ours)
        self.contexts = (embed(features * 0.0), embed(features))
        self.features = features
        self.x = torch_side.images(given.x_BHVC)

    def run(self) -> Any:
        """(mels [B, F, T], audio)."""
        import torch

        with torch.no_grad():
            given = self.given
            context = torch.cat(self.contexts)
            eps = lambda x, t: self._eps(x, t, context)  # noqa: E731
            z = solvers.dpm_solver(eps, self.x, given.times, given.alpha, given.sigma)
            decode = getattr(self.vae, "decode", self.vae)
            image = decode((z / self.scale).to(self.dtype), return_dict=False)[0]
            mel_BFT = image[:, 0].float()
            s = self.audio
            audio = vocoder.audio_of_log_mel(
                mel_BFT.clamp(0.0, 1.0),
                s.basis_FK,
                n_fft=s.n_fft,
                hop=s.hop,
                inversion=s.inversion,
                iterations=s.iterations,
            )
        return mel_BFT, audio

    def _eps(self, x: Any, time: float, context: Any) -> Any:
        """Both halves of classifier-free guidance in one batch; then the classifier's gradient."""
        import torch

        t_B = torch.full((2 * len(x),), time, device=x.device)
        both = torch.cat([x, x]).to(self.dtype)
        null, wanted = self.unet(both, t_B, context, return_dict=False)[0].float().chunk(2)
        eps = null + self.given.guidance * (wanted - null)
        if self.classifier is None:
            return eps
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            logits = self.classifier(leaf.to(self.dtype), t_B[: len(x)], self.features)
            (gradient,) = torch.autograd.grad(
                torch.nn.functional.logsigmoid(logits.float()).sum(), leaf
            )
        sigma = np.interp(time, self.given.times[::-1], self.given.sigma[::-1])
        return eps - self.given.alignment * float(sigma) * gradient
