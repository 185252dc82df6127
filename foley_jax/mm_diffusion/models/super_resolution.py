"""The super-resolution U-Net: predicts the noise in a large image that shows a small one.

B batch, H W space, C channels, T tokens, D width of the time embedding.
It is ADM's upsampler: the nesting `input_blocks` / `middle_block` / `output_blocks` is the
official one, so conversion is renames only.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels import dispatch
from foley_jax.layers import configured, conv, dense, embedding, unet_layout
from foley_jax.mm_diffusion.models import blocks
from foley_jax.runtime import partition

TIME_MULT = 4  # width of the time embedding over model_channels


def resample(x_BHWC: jax.Array, how: blocks.Resample) -> jax.Array:
    """Mean of 2x2 pixels ("down") or each pixel 2x2 times ("up")."""
    return blocks.resample_video(x_BHWC[None], how)[0]  # the images as frames of one clip


class ResBlock(nnx.Module):
    """norm, SiLU, resampling, conv, norm * (1 + scale) + shift, SiLU, conv, + shortcut.

    The coupled U-Net resamples after its first convolution, this network before it.
    Source: image_unet.py ResBlock, use_scale_shift_norm=True.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        time_dim: int,
        resample: blocks.Resample = "none",
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        build = {"dtype": dtype, "rngs": rngs}
        self.norm1 = blocks.group_norm(in_channels, rngs=rngs)
        self.conv1 = conv.Conv2d(in_channels, out_channels, upsample=resample == "up", **build)
        # float32 as in the official half-precision mode
        self.time_proj = dense.dense(time_dim, 2 * out_channels, rngs=rngs)
        self.norm2 = blocks.group_norm(out_channels, rngs=rngs)
        self.conv2 = conv.Conv2d(out_channels, out_channels, zero_init=True, **build)
        self.shortcut = (
            None
            if in_channels == out_channels
            else conv.Conv2d(in_channels, out_channels, (1, 1), **build)
        )
        self.resample = resample

    def __call__(self, x_BHWC: jax.Array, time_BD: jax.Array) -> jax.Array:
        """[B, H, W, in] -> [B, H', W', out]; `time_BD` is the embedding after its SiLU."""
        h = jax.nn.silu(self.norm1(x_BHWC))
        h = self.conv1(h if self.conv1.upsample else resample(h, self.resample))
        x = resample(x_BHWC, self.resample)
        scale_BC, shift_BC = jnp.split(self.time_proj(time_BD).astype(h.dtype), 2, axis=-1)
        h = self.norm2(h)
        h = h * dispatch.broadcast_channels(1 + scale_BC, h) + dispatch.broadcast_channels(
            shift_BC, h
        )
        h = self.conv2(jax.nn.silu(h))
        return h + (x if self.shortcut is None else self.shortcut(x))


class HeadwiseAttention(blocks.SelfAttention):
    """Self-attention over the pixels whose qkv is ordered per head: [q | k | v], [q | k | v], ...

    Source: image_unet.py AttentionBlock with QKVAttentionLegacy.
    """

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        b, h, w, c = x_BHWC.shape
        x_BTC = x_BHWC.reshape(b, h * w, c)
        # [B, T, N*3*D] -> [B, T, N, 3*D]
        qkv = self.qkv(self.norm(x_BTC)).reshape(b, h * w, self.num_heads, -1)
        y = dispatch.attention(*jnp.split(qkv, 3, axis=-1))
        x_BTC = x_BTC + self.proj_out(y.reshape(x_BTC.shape))  # [B, T, N, D] -> [B, T, C]
        return x_BTC.reshape(x_BHWC.shape)


@dataclasses.dataclass(frozen=True)
class Blocks(unet_layout.Layout):
    """Makes the layers of one network; the fields are those of `SuperResolution`."""

    model_channels: int
    attention_downsamples: Sequence[int]
    num_heads: int
    dtype: jnp.dtype
    rngs: nnx.Rngs

    def res_block(self, in_ch: int, out_ch: int, how: blocks.Resample = "none") -> ResBlock:
        time_dim = TIME_MULT * self.model_channels
        build = {"dtype": self.dtype, "rngs": self.rngs}
        return ResBlock(in_ch, out_ch, time_dim=time_dim, resample=how, **build)

    def attention(self, ch: int) -> HeadwiseAttention:
        return HeadwiseAttention(ch, self.num_heads, dtype=self.dtype, rngs=self.rngs)

    def level(self, in_ch: int, out_ch: int, downsample: int) -> list[nnx.Module]:
        """A residual block, with attention where this resolution has it."""
        layers: list[nnx.Module] = [self.res_block(in_ch, out_ch)]
        if downsample in self.attention_downsamples:
            layers.append(self.attention(out_ch))
        return layers

    def down(self, ch: int) -> ResBlock:
        return self.res_block(ch, ch, "down")

    def up(self, ch: int) -> ResBlock:
        return self.res_block(ch, ch, "up")

    def inputs(
        self, in_channels: int, channel_mult: Sequence[int], num_res_blocks: int
    ) -> tuple[nnx.List, list[int]]:
        """The way down, and the width of every entry."""
        ch = channel_mult[0] * self.model_channels
        first = conv.Conv2d(in_channels, ch, dtype=self.dtype, rngs=self.rngs)
        return self.way_down(first, ch, channel_mult, num_res_blocks)


class SuperResolution(nnx.Module):
    """Predicts noise and variance of a large image, given the step and the small image.

    Defaults are the official 64 -> 256 network: 311,027,910 parameters. Images of any size fit
    whose sides are multiples of 2 per level after the first; the small one may have any size.
    Fields: `picture_channels` of one image (the output has twice as many: noise, then variance,
    see `diffusion.learned_range`), `attention_downsamples` the levels that have self-attention,
    always of `num_heads` heads, `remat` recomputes each entry in the backward pass.
    """

    def __init__(
        self,
        *,
        picture_channels: int = 3,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 1, 2, 2, 4, 4),
        num_res_blocks: int = 2,
        attention_downsamples: Sequence[int] = (8, 16, 32),
        num_heads: int = 4,
        remat: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        make = Blocks(
            model_channels=model_channels,
            attention_downsamples=attention_downsamples,
            num_heads=num_heads,
            dtype=dtype,
            rngs=rngs,
        )
        time_dim = TIME_MULT * model_channels
        # float32 as in the official half-precision mode
        self.time_embed = nnx.List(
            [
                dense.dense(model_channels, time_dim, rngs=rngs),
                dense.dense(time_dim, time_dim, rngs=rngs),
            ]
        )
        self.input_blocks, widths = make.inputs(2 * picture_channels, channel_mult, num_res_blocks)
        ch = widths[-1]
        self.middle_block = nnx.List(
            [make.res_block(ch, ch), make.attention(ch), make.res_block(ch, ch)]
        )
        self.output_blocks = make.way_up(widths, channel_mult, num_res_blocks)
        ch = channel_mult[0] * model_channels
        self.norm_out = blocks.group_norm(ch, rngs=rngs)
        # float32 as in the official half-precision mode
        self.conv_out = conv.Conv2d(ch, 2 * picture_channels, zero_init=True, rngs=rngs)
        self.picture_channels = picture_channels
        self.model_channels = model_channels
        self.num_halvings = len(channel_mult) - 1
        self.remat = remat
        self.dtype = dtype

    def _check(self, x_BHWC: jax.Array, low_BHWC: jax.Array, t_B: jax.Array) -> None:
        if x_BHWC.ndim != 4 or low_BHWC.ndim != 4:
            raise ValueError(
                f"large images are {x_BHWC.shape} and small ones {low_BHWC.shape}, expected "
                "[B, H, W, C] both; put the frames of a clip into the batch"
            )
        b, h, w, c = x_BHWC.shape
        factor = 2**self.num_halvings
        if (c, low_BHWC.shape[-1]) != (self.picture_channels,) * 2:
            raise ValueError(
                f"large images have {c} channels and small ones {low_BHWC.shape[-1]}, expected "
                f"{self.picture_channels}; check picture_channels"
            )
        if (low_BHWC.shape[0], t_B.shape) != (b, (b,)):
            raise ValueError(
                f"{b} large images, {low_BHWC.shape[0]} small ones, steps of shape {t_B.shape}"
            )
        if h % factor or w % factor:
            raise ValueError(
                f"large images of {h}x{w} pixels; the levels need sides that are multiples of "
                f"{factor}"
            )

    def _run(self, layers: nnx.List, h: jax.Array, time_BD: jax.Array) -> jax.Array:
        """One entry of the three lists."""

        def run(h, time_BD):
            for layer in layers:
                h = layer(h, time_BD) if isinstance(layer, ResBlock) else layer(h)
            return partition.shard_batch(h)

        run = jax.checkpoint(run) if self.remat else run
        return run(h, time_BD)

    def __call__(self, x_BHWC: jax.Array, low_BHWC: jax.Array, t_B: jax.Array) -> jax.Array:
        """One prediction.

        Args:
          x_BHWC: noisy large images, float, clean values in [-1, 1].
          low_BHWC: small images [B, h, w, C], float, about [-1, 1]; enlarged bilinearly.
          t_B: steps in model time [0, num_steps), int or float.
        Returns:
          float32 [B, H, W, 2 * C]: noise, then the place of the variance in its range.
        Raises:
          ValueError: shapes that do not fit the levels or each other.
        Source: image_unet.py ImageSuperResModel.forward.
        """
        self._check(x_BHWC, low_BHWC, t_B)
        time_BD = self.time_embed[0](embedding.timestep_embedding(t_B, self.model_channels))
        # every block starts its time branch with a SiLU: done once here
        time_BD = jax.nn.silu(self.time_embed[1](jax.nn.silu(time_BD)))
        # half-pixel centres, as align_corners=False
        shape = (*x_BHWC.shape[:3], low_BHWC.shape[-1])
        low = jax.image.resize(low_BHWC.astype(jnp.float32), shape, "bilinear", antialias=False)
        h = jnp.concatenate([x_BHWC.astype(self.dtype), low.astype(self.dtype)], axis=-1)
        skips = []
        for layers in self.input_blocks:
            h = self._run(layers, h, time_BD)
            skips.append(h)
        h = self._run(self.middle_block, h, time_BD)
        for layers in self.output_blocks:
            h = self._run(layers, jnp.concatenate([h, skips.pop()], axis=-1), time_BD)
        return self.conv_out(jax.nn.silu(self.norm_out(h.astype(jnp.float32))))


def from_config(config: Mapping[str, Any], *, dtype: Any = None, rngs: nnx.Rngs) -> SuperResolution:
    """Builds the network of `config.model`; its fields are the constructor's arguments.

    Raises:
      ValueError: unknown field.
    """
    return configured.build(SuperResolution, config, dtype=dtype, rngs=rngs)
