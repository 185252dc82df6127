"""Random-shift attention between video and audio (RS-MMA).

Every video frame attends to a short window of the audio, every audio segment to the frames of
the same window. No token meets all of the other modality, so cost grows with the number of
frames and not with its square.
B batch, F frames, H W space, L audio samples, P = L // F samples per frame, S frames of a window,
R its shift, C channels, N heads, D width of a head, M tokens of either modality.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels import dispatch
from foley_jax.layers import dense
from foley_jax.layers import norm as normalization
from foley_jax.mm_diffusion.models import time_positions as positions_lib

NORM_EPSILON = 1e-5  # nn.GroupNorm32
NUM_GROUPS = 32


def frame_windows(
    x_BMC: jax.Array, shift: jax.Array, *, num_frames: int, per_frame: int, window: int
) -> jax.Array:
    """The tokens that each frame attends to: ((i + R) * P + j) mod M, j = 0 .. S*P-1.

    Args:
      x_BMC: tokens in time order; M >= num_frames * per_frame, what is left over closes the ring.
      shift: int32 scalar R in [0, F - S]; may be traced.
      num_frames: F.
      per_frame: P, tokens per frame.
      window: S, frames per window, at most F.
    Returns:
      [B, F, S*P, C], dtype of x.
    Source: multimodal_unet.py QKVAttention, its two index tables.
    """
    b, m, c = x_BMC.shape
    x = jnp.roll(x_BMC, -shift * per_frame, axis=1)
    # the ring is opened behind its last window; (S - 1) * P tokens come again at most
    again = max(0, (num_frames + window - 1) * per_frame - m)
    x = jnp.concatenate([x, x[:, :again]], axis=1)
    # one slice for each place in the window, over all frames at once: slices have a cheap and
    # deterministic gradient, an index table would scatter
    places = [
        x[:, s * per_frame : (s + num_frames) * per_frame].reshape(b, num_frames, per_frame, c)
        for s in range(window)
    ]
    return jnp.concatenate(places, axis=2)


def _attend(q_BTC: jax.Array, kv_BSC: jax.Array, num_heads: int) -> jax.Array:
    """[..., T, C] attends to keys and values side by side, [..., S, 2C] -> [..., T, C]."""
    *lead, t, c = q_BTC.shape
    q = q_BTC.reshape(-1, t, num_heads, c // num_heads)
    k, v = jnp.split(kv_BSC, 2, axis=-1)
    # [..., S, C] -> [B, S, N, D]
    k, v = (y.reshape(-1, y.shape[-2], num_heads, c // num_heads) for y in (k, v))
    return dispatch.attention(q, k, v).reshape(*lead, t, c)


def cross_attention(
    video_qkv_BFMC: jax.Array,
    audio_qkv_BLC: jax.Array,
    shift: jax.Array,
    *,
    window: int,
    num_heads: int,
) -> tuple[jax.Array, jax.Array]:
    """Video attends to audio and audio to video, each within a window of S frames.

    Frame i and audio segment i look at frames i+R .. i+R+S-1 of the other side, around the end.
    Segment i is samples i*P .. (i+1)*P-1; the last one also takes what is left when F does not
    divide L. With S = F every key is seen, whatever the shift.

    Args:
      video_qkv_BFMC: [B, F, H*W, 3C], queries, keys, values side by side, heads within each.
      audio_qkv_BLC: [B, L, 3C], L >= F.
      shift: int32 scalar R in [0, F - S]; may be traced.
      window: S, frames of a window, in [1, F].
      num_heads: N, a divisor of C.
    Returns:
      Video [B, F, H*W, C] and audio [B, L, C], before their projections; softmax in float32.
    Raises:
      ValueError: fewer samples than frames, or a window longer than the clip.
    Source: multimodal_unet.py QKVAttention; softmax there is float16 in half precision.
    """
    b, f, m, c = video_qkv_BFMC.shape
    length, c = audio_qkv_BLC.shape[1], c // 3
    check_sizes(f, length, window)
    video_q, video_kv = video_qkv_BFMC[..., :c], video_qkv_BFMC[..., c:].reshape(b, f * m, -1)
    audio_q, audio_kv = audio_qkv_BLC[..., :c], audio_qkv_BLC[..., c:]
    per_frame = length // f
    left = length - f * per_frame
    if window == f and not left:  # the order of the keys does not matter
        video = _attend(video_q.reshape(b, f * m, c), audio_kv, num_heads)
        return video.reshape(b, f, m, c), _attend(audio_q, video_kv, num_heads)
    cut = {"num_frames": f, "window": window}
    audio_keys = frame_windows(audio_kv, shift, per_frame=per_frame, **cut)
    video_keys = frame_windows(video_kv, shift, per_frame=m, **cut)
    video = _attend(video_q, audio_keys, num_heads)
    # [B, L, C] -> [B, F, P, C] and back
    segments = audio_q[:, : f * per_frame].reshape(b, f, per_frame, c)
    audio = _attend(segments, video_keys, num_heads).reshape(b, f * per_frame, c)
    if left:
        rest = _attend(audio_q[:, -left:], video_keys[:, -1], num_heads)
        audio = jnp.concatenate([audio, rest], axis=1)
    return video, audio


def check_sizes(num_frames: int, num_samples: int, window: int) -> None:
    """Raises ValueError unless windows of this many frames can be laid over the clip."""
    if num_samples < num_frames:
        raise ValueError(
            f"{num_samples} audio samples for {num_frames} frames at a level with cross-attention; "
            "every frame needs one: give more audio or fewer frames"
        )
    if not 1 <= window <= num_frames:
        raise ValueError(
            f"window of {window} frames for a clip of {num_frames}; give a longer clip or smaller "
            "cross_attention_windows"
        )


class WindowAttention(nnx.Module):
    """Norm, RS-MMA and projection of both modalities, added to the input.

    `window=None` attends to the whole clip and knows no shift (the middle of the U-Net).
    `time_positions` turns queries and keys by their tokens' seconds, frames `frame_s` apart: beyond
    the paper, see the module of that name.
    The official code draws the shift inside, at inference too, and draws another when it
    recomputes the block in the backward pass; here it is an argument.
    Source: multimodal_unet.py CrossAttentionBlock.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        *,
        window: int | None,
        time_positions: bool = False,
        frame_s: float = 0.1,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if channels % num_heads:
            raise ValueError(f"{channels} channels cannot be split into {num_heads} heads")
        norm = {"num_groups": NUM_GROUPS, "epsilon": NORM_EPSILON, "rngs": rngs}
        build = {"dtype": dtype, "rngs": rngs}
        self.video_norm = normalization.GroupNorm32(channels, **norm)
        self.audio_norm = normalization.GroupNorm32(channels, **norm)
        self.video_qkv = dense.dense(channels, 3 * channels, **build)
        self.audio_qkv = dense.dense(channels, 3 * channels, **build)
        self.video_proj = dense.dense(channels, channels, zero_init=True, **build)
        self.audio_proj = dense.dense(channels, channels, zero_init=True, **build)
        self.num_heads = num_heads
        self.window = window
        self.time_positions, self.frame_s = time_positions, frame_s
        if time_positions:
            for layer in (self.video_qkv, self.audio_qkv):
                positions_lib.start_near(layer)

    def _turned(self, video: jax.Array, audio: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, F, M, 3C] and [B, L, 3C] with the seconds of their tokens in queries and keys."""
        b, f, m, c = video.shape
        width = c // 3 // self.num_heads
        video_FD, audio_LD = positions_lib.angles(f, audio.shape[1], self.frame_s, width)
        video_TD = jnp.repeat(video_FD, m, axis=0)  # all tokens of a frame are at its time
        video = positions_lib.turned(video.reshape(b, f * m, c), video_TD, self.num_heads)
        audio = positions_lib.turned(audio, audio_LD, self.num_heads)
        return video.reshape(b, f, m, c), audio

    def __call__(
        self, video_BFHWC: jax.Array, audio_BLC: jax.Array, shift: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Both modalities after one exchange; same shapes.

        Args:
          video_BFHWC: float.
          audio_BLC: float, L >= F.
          shift: int32 scalar in [0, F - window]; None without a window.
        Raises:
          ValueError: a shift without a window or the reverse, or sizes that do not fit.
        """
        if (shift is None) != (self.window is None):
            raise ValueError(f"window is {self.window} and shift is {shift}; give both or neither")
        b, f, h, w, c = video_BFHWC.shape
        video = self.video_qkv(self.video_norm(video_BFHWC)).reshape(b, f, h * w, 3 * c)
        audio = self.audio_qkv(self.audio_norm(audio_BLC))
        if self.time_positions:
            video, audio = self._turned(video, audio)
        video, audio = cross_attention(
            video,
            audio,
            jnp.zeros((), jnp.int32) if shift is None else shift,
            window=f if self.window is None else self.window,
            num_heads=self.num_heads,
        )
        video = self.video_proj(video).reshape(video_BFHWC.shape)
        return video_BFHWC + video, audio_BLC + self.audio_proj(audio)
