"""MS-CLAP 2023: audio clips and captions as vectors of one space; MS-CLAP-Score of av-benchmark.

HTSAT-tiny hears audio of 44.1 kHz through mel filters that were made for 32 kHz: its weights were
trained so. A short clip is laid end to end until 7 s are full. Of a longer one the official code
takes 7 s from anywhere; here they are those in the middle.
B batch, L audio samples, T tokens, D = 1024.
Source: microsoft/CLAP msclap/{CLAPWrapper.py, models/clap.py, models/htsat.py}.
"""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.evaluation.networks import gpt2, htsat
from foley_jax.layers import dense, encoder_block, norm
from foley_jax.media import specs

SAMPLE_RATE_HZ = 44100
LENGTH = 7 * SAMPLE_RATE_HZ
EMBED_DIM = 1024
MIN_TOKENS = 77  # shorter captions are padded, longer ones stay
PADDING = 0  # id of the token "!", which also means that there is none
FRONT_END = specs.AudioSpec(
    sample_rate_hz=32000,  # what the filters believe
    n_fft=1024,
    hop=320,
    num_mels=htsat.MELS,
    fmin_hz=50.0,
    fmax_hz=14000.0,
)


def fitted(audio_L: np.ndarray) -> np.ndarray:
    """A clip as the network takes it, float [308700]: laid end to end; or its middle.

    Raises:
      ValueError: no samples.
    Source: msclap CLAPWrapper.py `load_audio_into_tensor`.
    """
    audio_L = htsat.middle(audio_L, LENGTH)
    return np.tile(audio_L, -(-LENGTH // len(audio_L)))[:LENGTH]


class Projection(nnx.Module):
    """norm(e + W2 gelu(e)), e = W1 x: [..., in] -> [..., 1024]."""

    def __init__(self, in_dim: int, *, rngs: nnx.Rngs):
        self.linear1 = dense.dense(in_dim, EMBED_DIM, use_bias=False, rngs=rngs)
        self.linear2 = dense.dense(EMBED_DIM, EMBED_DIM, use_bias=False, rngs=rngs)
        self.layer_norm = norm.layer_norm(EMBED_DIM, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        e = self.linear1(x)
        return self.layer_norm(e + self.linear2(encoder_block.gelu(e, "exact")))


class MsClap(nnx.Module):
    """Both towers with their projections; depths and vocabulary for tests."""

    def __init__(
        self,
        *,
        channels: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        text_layers: int = 12,
        vocabulary: int = gpt2.VOCABULARY,
        rngs: nnx.Rngs,
    ):
        self.audio_branch = htsat.Htsat(FRONT_END, channels, depths, rngs=rngs)
        self.text_branch = gpt2.Gpt2(num_layers=text_layers, vocabulary=vocabulary, rngs=rngs)
        self.audio_projection = Projection(8 * channels, rngs=rngs)
        self.text_projection = Projection(gpt2.WIDTH, rngs=rngs)

    def embed_audio(self, audio_BL: jax.Array) -> jax.Array:
        """Vectors of audio clips, of any length in their space.

        Args:
          audio_BL: float [B, 308700] in [-1, 1] at 44.1 kHz (`fitted`).
        Returns:
          float32 [B, 1024].
        Raises:
          ValueError: another length.
        """
        if audio_BL.ndim != 2 or audio_BL.shape[1] != LENGTH:
            raise ValueError(
                f"audio has shape {audio_BL.shape}, expected [B, {LENGTH}] (7 s at 44.1 kHz; see "
                "`fitted`)"
            )
        return self.audio_projection(self.audio_branch(audio_BL))

    def embed_text(self, ids_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
        """Vectors of captions, of any length in their space.

        The hidden state of the token at index (number of ids that are not 0) - 1: the last one,
        but one earlier for every "!" in the caption, whose id is 0 (as in the source).

        Args:
          ids_BT: int [B, T], GPT-2's tokens (`captions.ms_clap`).
          mask_BT: 1 where there is a token, 0 where there is padding.
        Returns:
          float32 [B, 1024].
        """
        hidden_BTC = self.text_branch(ids_BT, mask_BT)
        last_B = jnp.sum(ids_BT != PADDING, axis=1) - 1
        picked = jnp.take_along_axis(hidden_BTC, last_B[:, None, None], axis=1)[:, 0]
        return self.text_projection(picked)
