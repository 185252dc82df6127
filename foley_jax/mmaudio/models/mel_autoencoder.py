"""The autoencoder between log-mels and latents, one-dimensional over time.

B batch, F mel bands, T mel frames, N = T / 2 latent positions, C latent channels, D hidden width.
"""

from collections.abc import Mapping
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.mmaudio.models import magnitude_preserving as mp

MULTIPLES = (1, 2, 4)  # widths of the levels
LOGVAR_RANGE = (-30.0, 20.0)


class Statistics(nnx.Variable):
    """Mean and deviation of every mel band: saved with the network, never trained."""


class Encoder(nnx.Module):
    """Normalised mels [B, T, F] -> mean and log variance side by side [B, T / 2, 2 C]."""

    def __init__(
        self, num_mels: int, latent_dim: int, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        build = {"dtype": dtype, "rngs": rngs}
        widths = [width, *(width * m for m in MULTIPLES)]
        self.conv_in = mp.convolution(num_mels, width, 3, **build)
        self.down = nnx.List(
            [
                mp.Level(widths[i], widths[i + 1], 2, change="" if i else "down", **build)
                for i in range(len(MULTIPLES))
            ]
        )
        self.mid = mp.Middle(widths[-1], **build)
        self.conv_out = mp.convolution(widths[-1], 2 * latent_dim, 3, **build)
        self.learnable_gain = nnx.Param(jnp.zeros(()))

    def __call__(self, mel_BTF: jax.Array) -> jax.Array:
        """[B, T, F] -> [B, T / 2, 2 C]."""
        x = self.conv_in(mel_BTF)
        for level in self.down:
            x = level(x)
        gain = self.learnable_gain[...] + 1
        return self.conv_out(mp.silu(self.mid(x))) * gain.astype(x.dtype)


class Decoder(nnx.Module):
    """Latents [B, N, C] -> normalised mels [B, 2 N, F]."""

    def __init__(
        self, num_mels: int, latent_dim: int, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        build = {"dtype": dtype, "rngs": rngs}
        widths = [width * m for m in MULTIPLES]
        wider = [*widths[1:], widths[-1]]  # what comes from the level above
        self.conv_in = mp.convolution(latent_dim, widths[-1], 3, **build)
        self.mid = mp.Middle(widths[-1], **build)
        self.up = nnx.List(
            [
                mp.Level(wider[i], widths[i], 3, change="up" if i == 1 else "", **build)
                for i in range(len(MULTIPLES))
            ]
        )
        self.conv_out = mp.convolution(width, num_mels, 3, **build)
        self.learnable_gain = nnx.Param(jnp.zeros(()))

    def __call__(self, latent_BNC: jax.Array) -> jax.Array:
        """[B, N, C] -> [B, 2 N, F]."""
        x = self.mid(self.conv_in(latent_BNC))
        for level in reversed(list(self.up)):
            x = level(x)
        gain = self.learnable_gain[...] + 1
        return self.conv_out(mp.silu(x)) * gain.astype(x.dtype)


class MelAutoencoder(nnx.Module):
    """Log-mels <-> latents. Fields of the released ones: `CONFIGS`.

    Kernels are those in use, see `magnitude_preserving.normalised_kernel`.
    Source: MMAudio mmaudio/ext/autoencoder/vae.py `VAE`.
    """

    def __init__(
        self,
        *,
        num_mels: int = 80,
        latent_dim: int = 20,
        width: int = 384,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        build = {"dtype": dtype, "rngs": rngs}
        self.encoder = Encoder(num_mels, latent_dim, width, **build)
        self.decoder = Decoder(num_mels, latent_dim, width, **build)
        self.data_mean = Statistics(jnp.zeros((1, num_mels, 1)))
        self.data_std = Statistics(jnp.ones((1, num_mels, 1)))
        self.num_mels, self.latent_dim, self.dtype = num_mels, latent_dim, dtype

    def encode(self, mel_BFT: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns mean and log variance of the latents.

        Args:
          mel_BFT: log-mel as the front end of this rate gives it; T even.
        Returns:
          float32 [B, N, C] each; the log variance within [-30, 20].
        Raises:
          ValueError: another number of bands, or an odd number of frames.
        """
        if mel_BFT.ndim != 3 or mel_BFT.shape[1] != self.num_mels or mel_BFT.shape[2] % 2:
            raise ValueError(
                f"mel has shape {mel_BFT.shape}, expected [batch, {self.num_mels} bands, an even "
                "number of frames]"
            )
        mel = (mel_BFT - self.data_mean[...]) / self.data_std[...]
        x = self.encoder(jnp.swapaxes(mel, 1, 2).astype(self.dtype)).astype(jnp.float32)
        mean, logvar = jnp.split(x, 2, axis=-1)
        return mean, jnp.clip(logvar, *LOGVAR_RANGE)

    def decode(self, latent_BNC: jax.Array) -> jax.Array:
        """Returns the log-mel of latents.

        Args:
          latent_BNC: float, not normalised: as `encode` gives them.
        Returns:
          float32 [B, F, 2 N].
        Raises:
          ValueError: another number of latent channels.
        """
        if latent_BNC.ndim != 3 or latent_BNC.shape[2] != self.latent_dim:
            raise ValueError(
                f"latents have shape {latent_BNC.shape}, expected [batch, length, "
                f"{self.latent_dim}]"
            )
        mel = self.decoder(latent_BNC.astype(self.dtype)).astype(jnp.float32)
        return jnp.swapaxes(mel, 1, 2) * self.data_std[...] + self.data_mean[...]


# the released autoencoders
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "vae_16k": {},
    "vae_44k": {"num_mels": 128, "latent_dim": 40, "width": 512},
}
