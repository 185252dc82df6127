"""Encoders of the demo, in place of CLIP and Synchformer: one video encoder, and a table of words.

B batch, F frames, T tokens, H W, C channels, D width.
"""

from collections.abc import Sequence
import re
import zlib

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.media import specs
from foley_jax.mmaudio import rates

WORDS, TOKENS, TEXT_DIM = 1024, 8, 32


def videos(height: int, width: int) -> tuple[specs.VideoSpec, specs.VideoSpec]:
    """Returns what takes CLIP's and Synchformer's places sees: their rates, another size."""
    return tuple(
        specs.VideoSpec(fps, height, width, pick="nearest")
        for fps in (rates.CLIP_FPS, rates.SYNC_FPS)
    )


class Words:
    """A tokenizer without a vocabulary: every word is a hash, int32 in [1, 1024); 0 is none."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> [B, 8]; further words are left out."""
        ids_BT = np.zeros((len(texts), TOKENS), np.int32)
        for row, text in zip(ids_BT, texts):
            words = re.findall(r"\w+", text.lower())[:TOKENS]
            row[: len(words)] = [1 + zlib.crc32(w.encode()) % (WORDS - 1) for w in words]
        return ids_BT


def word_features() -> np.ndarray:
    """Returns a unit vector for every hash, float32 [1024, D]; zeros where there is no word."""
    table = np.random.RandomState(0).standard_normal((WORDS, TEXT_DIM))  # its stream is frozen
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    table[0] = 0.0
    return table.astype(np.float32)


class SmallEncoders(nnx.Module):
    """Images, segments of frames and words, under the names that the pipeline calls.

    `video`: float [B, F, H, W, 3] in [0, 1], 12 frames a second or nearly -> unit features
    [B, F, D]; a CAVP.
    """

    def __init__(self, video: nnx.Module):
        self.video = video

    def _features(self, frames_BFHWC: jax.Array) -> jax.Array:
        """Features of mean square one: those of the other networks are not small either."""
        features = self.video.encode_video(frames_BFHWC, normalize=True)
        return features * features.shape[-1] ** 0.5

    def encode_image(self, image_BHWC: jax.Array, normalize: bool = True) -> jax.Array:
        """Features of single images in [0, 1], float32 [B, D]: what is there, not how it moves."""
        del normalize
        return self._features(image_BHWC[:, None])[:, 0]

    def encode_text(self, ids_BT: jax.Array, normalize: bool = True) -> jax.Array:
        """Features of words by `Words`, float32 [B, T, D]."""
        del normalize
        return jnp.asarray(word_features())[ids_BT]

    def __call__(self, x_BFHWC: jax.Array) -> jax.Array:
        """Features [B, 8, D] of segments of 16 frames in [-1, 1], 25 a second; every other one."""
        return self._features(x_BFHWC[:, ::2] * 0.5 + 0.5)
