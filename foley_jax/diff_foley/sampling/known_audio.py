"""Latents of audio that is there already, for Diff-Foley.

B batch, H W C latent rows, columns and channels, F mels, T frames.
"""

from collections.abc import Callable

from flax import nnx
import jax
import numpy as np

from foley_jax.diffusion import known, windows
from foley_jax.media import editing, specs
from foley_jax.media import mel as mel_lib
from foley_jax.runtime import network

KnownFn = Callable[[editing.Kept, int], known.KnownColumns]


def encoder(
    ldm: network.Network, audio: specs.AudioSpec, window: windows.WindowSpec, column_frames: int
) -> KnownFn:
    """Returns (known audio, number of windows) -> their scaled latents, and which are known.

    Args:
      ldm: latent diffusion model, whose autoencoder encodes.
      audio: its front end.
      window: of the sampler.
      column_frames: mel frames of a latent column.
    """
    encode = ldm.jit(_encode, name="encode")
    block_frames = column_frames * window.num_columns

    def known_of(kept: editing.Kept, blocks: int) -> known.KnownColumns:
        mel_FT = np.asarray(mel_lib.log_mel(kept.audio_L[None], audio))[0]
        z_HWC = known.encoded(mel_FT, blocks, encode, block_frames=block_frames, silence=0.0)
        known_W = editing.known_columns(kept, z_HWC.shape[1], window.column_s, audio.sample_rate_hz)
        return known.KnownColumns(z_HWC, known_W)

    return known_of


def _encode(model: nnx.Module, mel_BFT: jax.Array) -> jax.Array:
    return model.encode_mel(mel_BFT, key=None)
