"""LAION-CLAP: audio clips and captions as vectors of one space; LAION-CLAP-Score of av-benchmark.

The model without fusion on HTSAT-base that av-benchmark uses. A clip that is no 10 s long is
repeated as often as it fits as a whole and filled up with silence. Of a longer one the official
code takes 10 s from anywhere; here they are those in the middle.
B batch, L audio samples, T tokens, D = 512.
Source: LAION-AI/CLAP src/laion_clap/{hook.py, clap_module/model.py}, `CLAP_Module(amodel=
"HTSAT-base")` with tensors.
"""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.evaluation.networks import htsat, roberta
from foley_jax.layers import dense
from foley_jax.media import specs

SAMPLE_RATE_HZ = 48000
LENGTH = 10 * SAMPLE_RATE_HZ
EMBED_DIM = 512
MAX_TOKENS = 77
FRONT_END = specs.AudioSpec(
    sample_rate_hz=SAMPLE_RATE_HZ,
    n_fft=1024,
    hop=480,
    num_mels=htsat.MELS,
    fmin_hz=50.0,
    fmax_hz=14000.0,
)
_SMALLEST_NORM = 1e-12  # of torch `normalize`


def fitted(audio_L: np.ndarray) -> np.ndarray:
    """A clip as the network takes it, float [480000]: repeated, then silence; or its middle.

    Raises:
      ValueError: no samples.
    Source: CLAP training/data.py `get_audio_features` ("repeatpad", "rand_trunc").
    """
    audio_L = htsat.middle(audio_L, LENGTH)
    repeated = np.tile(audio_L, LENGTH // len(audio_L))
    return np.pad(repeated, (0, LENGTH - len(repeated)))


class Projection(nnx.Module):
    """Linear, ReLU, linear, and length 1: [..., in] -> [..., 512]."""

    def __init__(self, in_dim: int, *, rngs: nnx.Rngs):
        widths = (in_dim, EMBED_DIM, EMBED_DIM)
        self.layers = nnx.List(
            [dense.dense(a, b, rngs=rngs) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layers[1](nnx.relu(self.layers[0](x)))
        length = jnp.linalg.norm(x, axis=-1, keepdims=True)
        return x / jnp.maximum(length, _SMALLEST_NORM)


class LaionClap(nnx.Module):
    """Both towers with their projections; depths and vocabulary for tests."""

    def __init__(
        self,
        *,
        channels: int = 128,
        depths: tuple[int, ...] = (2, 2, 12, 2),
        text_layers: int = 12,
        vocabulary: int = roberta.VOCABULARY,
        rngs: nnx.Rngs,
    ):
        self.audio_branch = htsat.Htsat(FRONT_END, channels, depths, rngs=rngs)
        self.text_branch = roberta.Roberta(num_layers=text_layers, vocabulary=vocabulary, rngs=rngs)
        self.audio_projection = Projection(8 * channels, rngs=rngs)
        self.text_projection = Projection(roberta.WIDTH, rngs=rngs)

    def embed_audio(self, audio_BL: jax.Array) -> jax.Array:
        """Unit vectors of audio clips.

        Args:
          audio_BL: float [B, 480000] in [-1, 1] at 48 kHz (`fitted`).
        Returns:
          float32 [B, 512].
        Raises:
          ValueError: another length.
        """
        if audio_BL.ndim != 2 or audio_BL.shape[1] != LENGTH:
            raise ValueError(
                f"audio has shape {audio_BL.shape}, expected [B, {LENGTH}] (10 s at 48 kHz; see "
                "`fitted`)"
            )
        return self.audio_projection(self.audio_branch(audio_BL))

    def embed_text(self, ids_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
        """Unit vectors of captions.

        Args:
          ids_BT: int [B, 77], RoBERTa's tokens (`captions.laion_clap`).
          mask_BT: 1 where there is a token, 0 where there is padding.
        Returns:
          float32 [B, 512].
        """
        return self.text_projection(self.text_branch(ids_BT, mask_BT))
