"""Where video and audio tokens lie in time, for the queries and keys of their attention.

Beyond the paper, whose cross-attention knows no positions: under a shift drawn anew at every call
no query can ask for its own moment. Rotary angles of seconds on both sides let it.
F frames, L audio samples, M tokens of a frame, N heads, D width of a head.
"""

import math

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.layers import rotary

FASTEST_S = 0.2  # the fastest pair of channels turns once in this time
BASE = 16.0  # the slowest about once in so many of them: 3.2 s, two clips of the paper
NEARNESS = 1.5  # square of the pairs' first bias: own moments start with a logit 2 to 4 higher


def angles(
    num_frames: int, num_samples: int, frame_s: float, width: int
) -> tuple[jax.Array, jax.Array]:
    """Rotary angles of the frames and of the audio samples of one clip.

    A frame is at the moment it shows, i * frame_s; sample j is at its middle, (j + 1/2) of L equal
    parts of the clip.

    Args:
      num_frames, num_samples: F and L.
      frame_s: seconds between frames.
      width: D of a head.
    Returns:
      float32 [F, D/2] and [L, D/2].
    Raises:
      ValueError: D is odd.
    """
    sample_s = num_frames * frame_s / num_samples
    video_s_F = jnp.arange(num_frames, dtype=jnp.float32) * frame_s
    audio_s_L = (jnp.arange(num_samples, dtype=jnp.float32) + 0.5) * sample_s
    turn = 2 * math.pi / FASTEST_S
    return tuple(rotary.angles(t * turn, width, base=BASE) for t in (video_s_F, audio_s_L))


def turned(qkv: jax.Array, angles: jax.Array, num_heads: int) -> jax.Array:
    """Turns queries and keys by the angles of their tokens; values stay.

    Args:
      qkv: [B, T, 3C], queries, keys, values side by side, heads within each.
      angles: float32 [T, D/2].
      num_heads: N.
    Returns:
      [B, T, 3C] in the dtype of `qkv`.
    """
    b, t, c = qkv.shape
    # queries and keys as 2N heads: [B, T, 2C] -> [B, T, 2N, D] and back
    both = qkv[..., : 2 * c // 3].reshape(b, t, 2 * num_heads, -1)
    both = rotary.rotate(both, angles).reshape(b, t, 2 * c // 3)
    return jnp.concatenate([both, qkv[..., 2 * c // 3 :]], axis=-1)


def start_near(layer: nnx.Linear) -> None:
    """Sets the biases of queries and keys so that attention starts with what is near in time.

    All pairs point the same way before they are turned, so a logit's share of the biases is
    NEARNESS / sqrt(D) times the sum of cos(angle of query - angle of key), largest at one moment.
    """
    channels = layer.out_features // 3
    along = jnp.zeros((2 * channels,)).at[::2].set(math.sqrt(NEARNESS))
    layer.bias[...] = layer.bias[...].at[: 2 * channels].set(along)
