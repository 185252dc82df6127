"""The vocoder behind the mel autoencoder: BigVGAN on mels with their bands first.

B batch, F mel bands, T mel frames, L = T * hop audio samples.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from foley_jax.vocoders import bigvgan


class MelVocoder(bigvgan.BigVgan):
    """BigVGAN as MMAudio calls it. Fields of the released ones: `CONFIGS`."""

    def __call__(self, mel_BFT: jax.Array) -> jax.Array:
        """Audio of mels.

        Args:
          mel_BFT: float [B, F, T], log10 (16 kHz) or natural log (44.1 kHz) of the mel.
        Returns:
          float32 [B, L] in [-1, 1].
        Raises:
          ValueError: another number of bands.
        """
        if mel_BFT.ndim != 3 or mel_BFT.shape[1] != self.num_mels:
            raise ValueError(
                f"mel has shape {mel_BFT.shape}, expected [batch, {self.num_mels} bands, frames]"
            )
        return super().__call__(jnp.swapaxes(mel_BFT, 1, 2))


def _fields(name: str) -> dict[str, Any]:
    return {field: value for field, value in bigvgan.CONFIGS[name].items() if field != "mel"}


# the generators' fields; that of 16 kHz is Make-An-Audio 2's
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "bigvgan_16k": {},
    "bigvgan_44k": _fields("bigvgan_v2_44khz_128band_512x"),
}
