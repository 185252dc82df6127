"""Clips as people have them, and as the coupled model sees them.

B batch, F frames, H W C image, L audio samples. The model's clip is
{"video": [B, F, H, W, C], "audio": [B, L, 1]}, float32 in [-1, 1].
"""

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.media import audio as audio_lib
from foley_jax.media import pixels


def audio_to_model(audio_BL: jax.Array, *, companding: float = 0.0) -> jax.Array:
    """Waveform, int16 or float in [-1, 1] -> [B, L, 1] in [-1, 1].

    Args:
      companding: mu of the mu-law sign(x) log(1 + mu |x|) / log(1 + mu), under which quiet audio
        stands out of the noise (ITU-T G.711; WaveNet's has mu 255); 0 leaves the waveform as it
        is, as the paper does.
    """
    if jnp.issubdtype(audio_BL.dtype, jnp.integer):
        audio_BL = audio_lib.from_pcm16(audio_BL)
    x_BL1 = jnp.asarray(audio_BL)[..., None]
    if companding:
        return jnp.sign(x_BL1) * jnp.log1p(companding * jnp.abs(x_BL1)) / np.log1p(companding)
    return x_BL1


def to_model(
    frames_BFHWC: jax.Array, audio_BL: jax.Array, *, companding: float = 0.0
) -> dict[str, jax.Array]:
    """Both parts of a clip; images uint8."""
    return {
        "video": pixels.from_uint8(frames_BFHWC),
        "audio": audio_to_model(audio_BL, companding=companding),
    }


def audio_from_model(audio_BL1: np.ndarray, *, companding: float = 0.0) -> np.ndarray:
    """The inverse of `audio_to_model`: waveform float32 [B, L].

    Values beyond [-1, 1] stay as they are without companding, and are clipped with it.
    """
    x_BL = np.asarray(audio_BL1, np.float32)[..., 0]
    if companding:
        size_BL = np.minimum(np.abs(x_BL), 1.0)
        x_BL = np.sign(x_BL) * np.expm1(size_BL * np.log1p(companding)) / companding
    return x_BL.astype(np.float32)
