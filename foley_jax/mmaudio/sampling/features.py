"""Features of images and text: what the flow network is conditioned on.

Axes: B batch, T frames, H W, C channels, D width.
"""

from collections.abc import Iterable, Iterator

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.mmaudio import rates
from foley_jax.mmaudio.models import synchformer
from foley_jax.runtime import grouped, partition


def encode_images(clip: nnx.Module, frames_BTHWC: jax.Array) -> jax.Array:
    """CLIP's unit features [B, T, D] of uint8 frames [B, T, H, W, 3]; runs inside jit."""
    b, t, *image = frames_BTHWC.shape
    images = partition.shard_batch(frames_BTHWC).reshape(b * t, *image)
    return clip.encode_image(images.astype(jnp.float32) / 255.0).reshape(b, t, -1)


def encode_segments(sync: nnx.Module, frames_BTHWC: jax.Array) -> jax.Array:
    """Synchformer's features [B, 8, D] of uint8 segments [B, 16, H, W, 3]; runs inside jit."""
    return sync(synchformer.standardise(partition.shard_batch(frames_BTHWC))).astype(jnp.float32)


def encode_texts(clip: nnx.Module, ids_BT: jax.Array) -> jax.Array:
    """CLIP's unit features [B, 77, D] of all tokens; runs inside jit."""
    return clip.encode_text(ids_BT)


def single(frames: Iterable[np.ndarray]) -> Iterator[grouped.Group]:
    """Groups of one frame each, for `grouped.encode`.

    Raises:
      ValueError: there are none.
    """
    empty = True
    for frame in frames:
        empty = False
        yield frame[None], slice(None)
    if empty:
        raise ValueError("the video has no frames")


def segments(frames: Iterable[np.ndarray]) -> Iterator[grouped.Group]:
    """Groups of 16 frames, one from every eighth frame on, for `grouped.encode`.

    Behind the end the last frame stays; the last segment holds nothing else, and stands for all
    that come after it. No more than a segment's frames are held.

    Args:
      frames: in order, uint8 [H, W, 3], 25 a second.
    Raises:
      ValueError: there are none.
    """
    held: list[np.ndarray] = []
    for frame in frames:
        if len(held) == rates.SEGMENT_FRAMES:
            yield np.stack(held), slice(None)
            held = held[rates.SEGMENT_STRIDE :]
        held.append(frame)
    if not held:
        raise ValueError("the video has no frames")
    last = held[-1]
    while True:
        missing = rates.SEGMENT_FRAMES - len(held)
        yield np.stack(held + [last] * missing), slice(None)
        if not held:
            return
        held = held[rates.SEGMENT_STRIDE :]
