"""Building blocks of the coupled U-Net: one object holds both modalities and one time embedding.

B batch, F frames, H W space, L audio samples, C channels, D width of the time embedding, T tokens.
"""

from typing import Literal

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels import dispatch, plain
from foley_jax.layers import (
    conv,
    dense,
)
from foley_jax.layers import norm as normalization

NORM_EPSILON = 1e-5  # nn.GroupNorm32
NUM_GROUPS = 32
SELF_ATTENTION_HEADS = 4  # the official num_head_channels does not reach self-attention
AUDIO_FACTOR = 4  # audio is resampled by 4 where video is by 2 x 2
Resample = Literal["none", "down", "up"]


def group_norm(channels: int, *, rngs: nnx.Rngs) -> normalization.GroupNorm32:
    """Statistics over (C/32, F, H, W) or (C/32, L), float32.

    The official one takes the wrong axis for channels in a clip of as many frames as channels.
    """
    return normalization.GroupNorm32(
        channels, num_groups=NUM_GROUPS, epsilon=NORM_EPSILON, rngs=rngs
    )


class VideoConv(nnx.Module):
    """3x3 over the image, then 3 over time, nothing between. Source: VideoConv "2d+1d"."""

    def __init__(self, in_channels: int, out_channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        build = {"dtype": dtype, "rngs": rngs}
        self.spatial = conv.Conv2d(in_channels, out_channels, (3, 3), **build)
        self.temporal = conv.Conv2d(out_channels, out_channels, (3, 1), **build)

    def __call__(self, x_BFHWC: jax.Array) -> jax.Array:
        """[B, F, H, W, in] -> [B, F, H, W, out]."""
        b, f, h, w, c = x_BFHWC.shape
        x = self.spatial(x_BFHWC.reshape(b * f, h, w, c))
        x = self.temporal(x.reshape(b, f, h * w, -1))  # [B*F, H, W, C] -> [B, F, H*W, C]
        return x.reshape(b, f, h, w, -1)


def audio_conv(
    in_channels: int,
    out_channels: int,
    *,
    dilation: int = 1,
    zero_init: bool = False,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
) -> conv.Conv1d:
    """Dilated convolution of 3 samples that keeps the length. Source: AudioConv."""
    return conv.Conv1d(
        in_channels,
        out_channels,
        3,
        dilation=dilation,
        zero_init=zero_init,
        dtype=dtype,
        rngs=rngs,
    )


def resample_video(x_BFHWC: jax.Array, how: Resample) -> jax.Array:
    """Mean of 2x2 pixels ("down") or each pixel 2x2 times ("up"); time stays."""
    b, f, h, w, c = x_BFHWC.shape
    if how == "down":
        return x_BFHWC.reshape(b, f, h // 2, 2, w // 2, 2, c).mean((3, 5))
    if how == "up":
        x = plain.nearest(x_BFHWC.reshape(b * f, h, w, c))
        return x.reshape(b, f, 2 * h, 2 * w, c)
    return x_BFHWC


def resample_audio(x_BLC: jax.Array, how: Resample) -> jax.Array:
    """Mean of 4 samples ("down") or each sample 4 times ("up")."""
    b, length, c = x_BLC.shape
    if how == "down":
        return x_BLC.reshape(b, length // AUDIO_FACTOR, AUDIO_FACTOR, c).mean(2)
    if how == "up":
        x = jnp.broadcast_to(x_BLC[:, :, None], (b, length, AUDIO_FACTOR, c))
        return x.reshape(b, length * AUDIO_FACTOR, c)
    return x_BLC


class SelfAttention(nnx.Module):
    """x + proj(attention(norm(x))), qkv ordered [Q of all heads | K | V], projection zero at first.

    Source: multimodal_unet.py SingleModalAttention.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = SELF_ATTENTION_HEADS,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        if channels % num_heads:
            raise ValueError(f"{channels} channels cannot be split into {num_heads} heads")
        build = {"dtype": dtype, "rngs": rngs}
        self.norm = group_norm(channels, rngs=rngs)
        self.qkv = dense.dense(channels, 3 * channels, **build)
        self.proj_out = dense.dense(channels, channels, zero_init=True, **build)
        self.num_heads = num_heads

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """[B, T, C] -> [B, T, C]; statistics of the norm over T."""
        b, t, _ = x_BTC.shape
        # [B, T, 3*N*D] -> [B, T, 3, N, D]
        qkv = self.qkv(self.norm(x_BTC)).reshape(b, t, 3, self.num_heads, -1)
        y = dispatch.attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        return x_BTC + self.proj_out(y.reshape(x_BTC.shape))  # [B, T, N, D] -> [B, T, C]


def attend_in_space(layer: SelfAttention, x_BFHWC: jax.Array) -> jax.Array:
    """Every frame for itself: tokens are its pixels."""
    b, f, h, w, c = x_BFHWC.shape
    return layer(x_BFHWC.reshape(b * f, h * w, c)).reshape(x_BFHWC.shape)


def attend_in_time(layer: SelfAttention, x_BFHWC: jax.Array) -> jax.Array:
    """Every pixel for itself: tokens are the frames."""
    b, f, h, w, c = x_BFHWC.shape
    # [B, F, H, W, C] -> [B*H*W, F, C] and back
    x = layer(x_BFHWC.reshape(b, f, h * w, c).swapaxes(1, 2).reshape(b * h * w, f, c))
    return x.reshape(b, h * w, f, c).swapaxes(1, 2).reshape(x_BFHWC.shape)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes a share `rate` of x and scales the rest up; nothing without a key."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


class InputBlock(nnx.Module):
    """First convolutions of both modalities. Source: InitialBlock."""

    def __init__(
        self,
        video_channels: int,
        audio_channels: int,
        out_channels: int,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        build = {"dtype": dtype, "rngs": rngs}
        self.video_conv = VideoConv(video_channels, out_channels, **build)
        self.audio_conv = audio_conv(audio_channels, out_channels, **build)

    def __call__(self, video_BFHWC: jax.Array, audio_BLC: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Both modalities with `out_channels` channels."""
        return self.video_conv(video_BFHWC), self.audio_conv(audio_BLC)


class ResBlock(nnx.Module):
    """Residual block of both modalities under one time embedding, with optional self-attention.

    h = conv(SiLU(norm(x))), then resampling of h and x, then h = norm(h) * (1 + scale) + shift,
    SiLU, dropout and a 1x1 map that is zero at first; out = shortcut(x) + h. ADM resamples before
    the first convolution, this network after it. Scale and shift are those of both modalities.
    Source: multimodal_unet.py ResBlock, use_scale_shift_norm=True.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        time_dim: int,
        dilation: int,
        resample: Resample = "none",
        video_attention: bool = False,
        audio_attention: bool = False,
        dropout_rate: float = 0.0,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        build = {"dtype": dtype, "rngs": rngs}
        last = {"zero_init": True, **build}
        self.video_norm1 = group_norm(in_channels, rngs=rngs)
        self.audio_norm1 = group_norm(in_channels, rngs=rngs)
        self.video_conv1 = VideoConv(in_channels, out_channels, **build)
        self.audio_conv1 = audio_conv(in_channels, out_channels, dilation=dilation, **build)
        # float32 as in the official half-precision mode
        self.time_proj = dense.dense(time_dim, 2 * out_channels, rngs=rngs)
        self.video_norm2 = group_norm(out_channels, rngs=rngs)
        self.audio_norm2 = group_norm(out_channels, rngs=rngs)
        self.video_conv2 = dense.dense(out_channels, out_channels, **last)
        self.audio_conv2 = dense.dense(out_channels, out_channels, **last)
        grows = in_channels != out_channels
        shortcut = lambda: dense.dense(in_channels, out_channels, **build)  # noqa: E731
        self.video_shortcut = shortcut() if grows else None
        self.audio_shortcut = shortcut() if grows else None
        attends = lambda wanted: SelfAttention(out_channels, **build) if wanted else None  # noqa: E731
        self.spatial_attention = attends(video_attention)
        self.temporal_attention = attends(video_attention)
        self.audio_attention = attends(audio_attention)
        self.resample = resample
        self.dropout_rate = dropout_rate

    def __call__(
        self,
        video_BFHWC: jax.Array,
        audio_BLC: jax.Array,
        time_BD: jax.Array,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """One block.

        Args:
          video_BFHWC: float, `in_channels` channels; H and W even for "down".
          audio_BLC: float, `in_channels` channels; L a multiple of 4 for "down".
          time_BD: the embedding after its SiLU.
          dropout_key: None for no dropout.
        Returns:
          Video and audio of `out_channels` channels, resampled.
        """
        scale_BC, shift_BC = jnp.split(self.time_proj(time_BD), 2, axis=-1)
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)

        def second(h, norm, conv, key):
            h = norm(h)
            scale, shift = (y.astype(h.dtype) for y in (scale_BC, shift_BC))
            h = h * dispatch.broadcast_channels(1 + scale, h) + dispatch.broadcast_channels(
                shift, h
            )
            return conv(dropout(jax.nn.silu(h), self.dropout_rate, key))

        h = self.video_conv1(jax.nn.silu(self.video_norm1(video_BFHWC)))
        h = resample_video(h, self.resample)
        x = resample_video(video_BFHWC, self.resample)
        x = x if self.video_shortcut is None else self.video_shortcut(x)
        video = x + second(h, self.video_norm2, self.video_conv2, keys[0])

        h = self.audio_conv1(jax.nn.silu(self.audio_norm1(audio_BLC)))
        h = resample_audio(h, self.resample)
        x = resample_audio(audio_BLC, self.resample)
        x = x if self.audio_shortcut is None else self.audio_shortcut(x)
        audio = x + second(h, self.audio_norm2, self.audio_conv2, keys[1])
        return self._attend(video, audio)

    def _attend(self, video: jax.Array, audio: jax.Array) -> tuple[jax.Array, jax.Array]:
        if self.spatial_attention is not None:
            video = attend_in_space(self.spatial_attention, video)
            video = attend_in_time(self.temporal_attention, video)
        if self.audio_attention is not None:
            audio = self.audio_attention(audio)
        return video, audio
