"""Synchformer's visual encoder: eight tokens for every 0.64 s of video at 25 frames/s.

MMAudio is conditioned on it, and DeSync (`evaluation/networks/synchformer.py`) hears with the rest
of the same network.
B segments, F frames, T = F / 2 times, H W pixels, P patches of a time, N heads, D width of a head,
C channels.
Source: Synchformer (v-iashin) model/modules/feat_extractors/visual/motionformer.py, MotionFormer
`divided_space_time`, b66668a.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels import dispatch
from foley_jax.layers import encoder_block, norm, patch_embedding

RATE_FPS = 25
SEGMENT_FRAMES, STEP_FRAMES = 16, 8  # 0.64 s every 0.32 s
IMAGE_SIZE = 224
WIDTH = 768
EPSILON = 1e-6
_PATCH = (2, 16, 16)  # frames, height, width


def segments(video_FHWC: jax.Array) -> jax.Array:
    """Overlapping segments of 16 frames, every 8: [F, H, W, C] -> [S, 16, H, W, C].

    S = (F - 16) // 8 + 1; frames at the end that fill no segment are left out.

    Raises:
      ValueError: fewer than 16 frames.
    """
    count = (video_FHWC.shape[0] - SEGMENT_FRAMES) // STEP_FRAMES + 1
    if count < 1:
        raise ValueError(
            f"video has {video_FHWC.shape[0]} frames, Synchformer needs {SEGMENT_FRAMES} "
            f"({SEGMENT_FRAMES / RATE_FPS} s at {RATE_FPS} frames/s)"
        )
    starts = range(0, count * STEP_FRAMES, STEP_FRAMES)
    return jnp.stack([video_FHWC[start : start + SEGMENT_FRAMES] for start in starts])


def standardise(frames_uint8: jax.Array) -> jax.Array:
    """Pixels 0..255 -> float32 in [-1, 1], as the network reads them."""
    return frames_uint8.astype(jnp.float32) / 127.5 - 1.0


class Aggregator(nnx.Module):
    """One token for many: a class token before them, through one transformer block.

    Source: Synchformer `SpatialTransformerEncoderLayer`, `FrequencyTransformerEncoderLayer`.
    """

    def __init__(
        self, channels: int, num_heads: int, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs
    ):
        self.cls_token = nnx.Param(jnp.zeros((1, 1, channels), jnp.float32))
        self.block = encoder_block.EncoderBlock(
            channels, num_heads, epsilon=EPSILON, dtype=dtype, rngs=rngs
        )

    def __call__(self, x_BPC: jax.Array) -> jax.Array:
        """[B, P, C] -> [B, C]."""
        return self.block(with_token(self.cls_token, x_BPC))[:, 0]


def with_token(token: nnx.Param, x_BPC: jax.Array) -> jax.Array:
    """Puts a token [1, n, C] before others: [B, P, C] -> [B, n + P, C]."""
    first = token[...].astype(x_BPC.dtype)
    first = jnp.broadcast_to(first, (x_BPC.shape[0], *first.shape[1:]))
    return jnp.concatenate([first, x_BPC], axis=1)


class DividedAttention(encoder_block.SelfAttention):
    """A class token attends to all tokens; a patch to it and to its own time, or its own place."""

    def divided(self, x_BLC: jax.Array, num_times: int, over: str) -> jax.Array:
        """[B, 1 + T*P, C] -> the same; tokens are ordered (time, place).

        Args:
          over: "time": a patch attends to the T patches of its place; "space": to the P of its
            time.
        """
        q, k, v = self.queries_keys_values(x_BLC)
        first = dispatch.attention(q[:, :1], k, v)
        grouped = [self._group(part[:, 1:], num_times, over) for part in (q, k, v)]
        repeats = grouped[0].shape[0] // x_BLC.shape[0]
        keys, values = (
            jnp.concatenate([jnp.repeat(whole[:, :1], repeats, axis=0), part], axis=1)
            for whole, part in ((k, grouped[1]), (v, grouped[2]))
        )
        rest = dispatch.attention(grouped[0], keys, values)
        rest = self._ungroup(rest, x_BLC.shape[0], over)
        return self.proj(jnp.concatenate([first, rest], axis=1).reshape(x_BLC.shape))

    def _group(self, x_BLND: jax.Array, num_times: int, over: str) -> jax.Array:
        """[B, T*P, N, D] -> [B*P, T, N, D] over time, [B*T, P, N, D] over space."""
        b, length, n, d = x_BLND.shape
        if over == "space":
            return x_BLND.reshape(b * num_times, -1, n, d)
        x = x_BLND.reshape(b, num_times, length // num_times, n, d).swapaxes(1, 2)
        return x.reshape(-1, num_times, n, d)

    def _ungroup(self, x: jax.Array, batch: int, over: str) -> jax.Array:
        """The inverse of `_group`."""
        _, size, n, d = x.shape
        if over == "space":
            return x.reshape(batch, -1, n, d)
        return x.reshape(batch, -1, size, n, d).swapaxes(1, 2).reshape(batch, -1, n, d)


class DividedBlock(nnx.Module):
    """x += timeattn(norm3(x)); x += attn(norm1(x)); x += mlp(norm2(x)).

    Source: motionformer `DividedSpaceTimeBlock`, whose names these are.
    """

    def __init__(
        self, channels: int, num_heads: int, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs
    ):
        build = {"dtype": dtype, "rngs": rngs}
        self.norm1, self.norm2, self.norm3 = (
            norm.layer_norm(channels, epsilon=EPSILON, **build) for _ in range(3)
        )
        self.timeattn = DividedAttention(channels, num_heads, **build)
        self.attn = DividedAttention(channels, num_heads, **build)
        self.mlp = encoder_block.Mlp(channels, encoder_block.MLP_MULT * channels, **build)

    def __call__(self, x_BLC: jax.Array, num_times: int) -> jax.Array:
        """[B, 1 + T*P, C] -> the same."""
        x_BLC = x_BLC + self.timeattn.divided(self.norm3(x_BLC), num_times, "time")
        x_BLC = x_BLC + self.attn.divided(self.norm1(x_BLC), num_times, "space")
        return x_BLC + self.mlp(self.norm2(x_BLC))


class VisualEncoder(nnx.Module):
    """ViT-B with divided space-time attention, then one token for every two frames."""

    def __init__(
        self,
        *,
        width: int = WIDTH,
        num_layers: int = 12,
        num_heads: int = 12,
        image_size: int = IMAGE_SIZE,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        times, places = SEGMENT_FRAMES // _PATCH[0], (image_size // _PATCH[1]) ** 2
        build = {"dtype": dtype, "rngs": rngs}
        self.patch_embed_3d = patch_embedding.PatchEmbedding(3, width, _PATCH, **build)
        self.cls_token = nnx.Param(jnp.zeros((1, 1, width), jnp.float32))
        self.pos_embed = nnx.Param(jnp.zeros((1, 1 + places, width), jnp.float32))
        self.temp_embed = nnx.Param(jnp.zeros((1, times, width), jnp.float32))
        self.blocks = nnx.List([DividedBlock(width, num_heads, **build) for _ in range(num_layers)])
        self.norm = norm.layer_norm(width, epsilon=EPSILON, **build)
        self.spatial_attn_agg = Aggregator(width, num_heads, **build)
        self.image_size, self.num_times = image_size, times

    def tokens(self, x_BFHWC: jax.Array) -> jax.Array:
        """The class token and the patches with their positions: [B, 1 + T*P, C].

        Raises:
          ValueError: not segments of 16 frames of `image_size` pixels.
        """
        want = (SEGMENT_FRAMES, self.image_size, self.image_size, 3)
        if x_BFHWC.shape[1:] != want:
            raise ValueError(f"segments are {x_BFHWC.shape}, expected [B, {want}]")
        x = self.patch_embed_3d(x_BFHWC)  # [B, T*P, C]
        where, when = (p[...].astype(x.dtype) for p in (self.pos_embed, self.temp_embed))
        # [1, 1, P, C] + [1, T, 1, C] -> [1, T*P, C]
        position = where[:, None, 1:] + when[:, :, None]
        x = with_token(self.cls_token, x)
        position = jnp.concatenate([where[:, :1], position.reshape(1, -1, x.shape[-1])], axis=1)
        return x + position

    def __call__(self, x_BFHWC: jax.Array) -> jax.Array:
        """Features of segments.

        Args:
          x_BFHWC: float [B, 16, 224, 224, 3] in [-1, 1] (`standardise`), 25 frames/s.
        Returns:
          [B, 8, 768]: one for every two frames.
        """
        x = self.tokens(x_BFHWC)
        for block in self.blocks:
            x = block(x, self.num_times)
        x = self.norm(x[:, 1:])
        # [B, T*P, C] -> [B*T, P, C] -> [B*T, C] -> [B, T, C]
        b, _, c = x.shape
        return self.spatial_attn_agg(x.reshape(b * self.num_times, -1, c)).reshape(b, -1, c)
