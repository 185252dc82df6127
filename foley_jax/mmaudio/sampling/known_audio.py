"""Latents of audio that is there already, for MMAudio.

B batch, N latents of a window, W of a tape, C channels, F mels, T frames, L samples.
"""

from collections.abc import Callable

from flax import nnx
import jax
import numpy as np

from foley_jax.diffusion import known, windows
from foley_jax.media import editing
from foley_jax.mmaudio import mel as mel_lib
from foley_jax.mmaudio import rates as rates_lib
from foley_jax.runtime import network

KnownFn = Callable[[editing.Kept, int], known.KnownColumns]


def encoder(
    autoencoder: network.Network, rates: rates_lib.Rates, window: windows.WindowSpec
) -> KnownFn:
    """Returns (known audio, number of windows) -> their latents [1, W, C], and which are known.

    The latents are those of the autoencoder, not yet normalised.

    Args:
      autoencoder: of mels.
      rates: its form of audio.
      window: of the sampler.
    """
    encode = autoencoder.jit(_encode, name="mmaudio encode")
    audio, frames = rates.audio, rates_lib.FRAMES_A_LATENT * window.num_columns
    silence = mel_lib.floor(rates)

    def known_of(kept: editing.Kept, blocks: int) -> known.KnownColumns:
        missing = max(0, audio.n_fft - len(kept.audio_L))  # the front end reflects its ends
        mel_FT = np.asarray(mel_lib.log_mel(np.pad(kept.audio_L, (0, missing)), rates))
        z_1WC = known.encoded(mel_FT, blocks, encode, block_frames=frames, silence=silence)
        known_W = editing.known_columns(kept, z_1WC.shape[1], window.column_s, audio.sample_rate_hz)
        return known.KnownColumns(z_1WC, known_W)

    return known_of


def _encode(autoencoder: nnx.Module, mel_BFT: jax.Array) -> jax.Array:
    """Mean latents [B, 1, N, C] of mels."""
    mean_BNC, _ = autoencoder.encode(mel_BFT)
    return mean_BNC[:, None]
