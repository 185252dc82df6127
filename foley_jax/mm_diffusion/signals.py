"""Clips as people have them, and as the coupled model sees them.

B batch, F frames, H W C picture, L audio samples. The model's clip is
{"video": [B, F, H, W, C], "audio": [B, L, 1]}, float32 in [-1, 1].
"""

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.media import audio as audio_lib
from foley_jax.media import pixels


def audio_to_model(audio_BL: jax.Array, *, scale: float) -> jax.Array:
    """Waveform, int16 or float in [-1, 1] -> [B, L, 1] times `scale`."""
    if jnp.issubdtype(audio_BL.dtype, jnp.integer):
        audio_BL = audio_lib.from_pcm16(audio_BL)
    x_BL1 = jnp.asarray(audio_BL)[..., None]
    return x_BL1 if scale == 1.0 else x_BL1 * scale


def to_model(
    frames_BFHWC: jax.Array, audio_BL: jax.Array, *, scale: float = 1.0
) -> dict[str, jax.Array]:
    """Both parts of a clip; pictures uint8."""
    return {
        "video": pixels.from_uint8(frames_BFHWC),
        "audio": audio_to_model(audio_BL, scale=scale),
    }


def audio_from_model(audio_BL1: np.ndarray, *, scale: float = 1.0) -> np.ndarray:
    """[B, L, 1] -> waveform float32 [B, L], not clipped."""
    return np.asarray(audio_BL1)[..., 0] / np.float32(scale)
