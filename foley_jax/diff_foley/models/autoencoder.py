"""The KL autoencoder of Stable Diffusion, between mel images and latents.

B batch, H W space (mel bins x time frames, or latent rows x columns), C channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels import dispatch, patches
from foley_jax.layers import configured, conv, residual
from foley_jax.layers import norm as normalization
from foley_jax.runtime import partition

NORM_EPSILON = 1e-6  # SD diffusionmodules/model.py Normalize
LOGVAR_RANGE = (-30.0, 20.0)  # SD DiagonalGaussianDistribution


class AttentionBlock(nnx.Module):
    """Single-head self-attention over all pixels, residual. Source: SD model.AttnBlock."""

    def __init__(self, channels: int, num_groups: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.norm = normalization.GroupNorm32(
            channels, num_groups=num_groups, epsilon=NORM_EPSILON, rngs=rngs
        )
        project = lambda: conv.Conv2d(channels, channels, (1, 1), dtype=dtype, rngs=rngs)  # noqa: E731
        self.q, self.k, self.v, self.proj_out = (project() for _ in range(4))

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        b, h, w, c = x_BHWC.shape
        y = self.norm(x_BHWC)
        # [B, H, W, C] -> [B, H*W, 1 head, C]
        q, k, v = (f(y).reshape(b, h * w, 1, c) for f in (self.q, self.k, self.v))
        return x_BHWC + self.proj_out(dispatch.attention(q, k, v).reshape(b, h, w, c))


class Resize(nnx.Module):
    """Change of resolution by two: the encoder's strided or the decoder's upsampling conv."""

    def __init__(self, channels: int, *, down: bool, dtype: jnp.dtype, rngs: nnx.Rngs):
        # the source pads (0, 1, 0, 1) before its stride-2 conv: only bottom and right
        resample = {"stride": 2, "padding": ((0, 1), (0, 1))} if down else {"upsample": True}
        self.conv = conv.Conv2d(channels, channels, **resample, dtype=dtype, rngs=rngs)

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H/2, W/2, C] (down) or [B, 2H, 2W, C]."""
        return self.conv(x_BHWC)


class Level(nnx.Module):
    """The residual blocks of one resolution, then maybe a resize."""

    def __init__(
        self,
        in_ch: int,
        out_ch: int,
        num_blocks: int,
        resize: str | None,
        num_groups: int,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        build = {"dtype": dtype, "rngs": rngs}
        norm = {"epsilon": NORM_EPSILON, "num_groups": num_groups}
        self.block = nnx.List(
            [
                residual.ResBlock(in_ch if j == 0 else out_ch, out_ch, **norm, **build)
                for j in range(num_blocks)
            ]
        )
        self.downsample = Resize(out_ch, down=True, **build) if resize == "down" else None
        self.upsample = Resize(out_ch, down=False, **build) if resize == "up" else None

    def __call__(self, h: jax.Array) -> jax.Array:
        """[B, H, W, in] -> [B, H', W', out]."""
        for block in self.block:
            h = block(h)
        for resize in (self.downsample, self.upsample):
            h = h if resize is None else resize(h)
        return partition.shard_batch(h)


class Middle(nnx.Module):
    """Residual block, attention (optional), residual block at the lowest resolution."""

    def __init__(
        self, channels: int, has_attention: bool, num_groups: int, *, dtype: jnp.dtype, rngs
    ):
        build = {"dtype": dtype, "rngs": rngs}
        norm = {"epsilon": NORM_EPSILON, "num_groups": num_groups}
        self.block_1 = residual.ResBlock(channels, channels, **norm, **build)
        self.attn_1 = AttentionBlock(channels, num_groups, **build) if has_attention else None
        self.block_2 = residual.ResBlock(channels, channels, **norm, **build)

    def __call__(self, h: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        h = self.block_1(h)
        h = h if self.attn_1 is None else self.attn_1(h)
        return self.block_2(h)


class Encoder(nnx.Module):
    """Image to latent moments."""

    def __init__(
        self, in_ch, out_ch, ch, ch_mult, num_blocks, has_attention, num_groups, *, dtype, rngs
    ):
        build = {"dtype": dtype, "rngs": rngs}
        widths = [ch, *(ch * m for m in ch_mult)]
        self.conv_in = conv.Conv2d(in_ch, ch, **build)
        self.down = nnx.List(
            [
                Level(
                    widths[i],
                    widths[i + 1],
                    num_blocks,
                    "down" if i < len(ch_mult) - 1 else None,
                    num_groups,
                    **build,
                )
                for i in range(len(ch_mult))
            ]
        )
        self.mid = Middle(widths[-1], has_attention, num_groups, **build)
        self.norm_out = normalization.GroupNorm32(
            widths[-1], num_groups=num_groups, epsilon=NORM_EPSILON, rngs=rngs
        )
        self.conv_out = conv.Conv2d(widths[-1], out_ch, **build)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, in] -> [B, H/f, W/f, out]."""
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        return self.conv_out(jax.nn.silu(self.norm_out(self.mid(h))))


class Decoder(nnx.Module):
    """Latent to image; `up` is stored from the highest resolution on, as in the source."""

    def __init__(
        self, in_ch, out_ch, ch, ch_mult, num_blocks, has_attention, num_groups, *, dtype, rngs
    ):
        build = {"dtype": dtype, "rngs": rngs}
        widths = [*(ch * m for m in ch_mult), ch * ch_mult[-1]]
        self.conv_in = conv.Conv2d(in_ch, widths[-1], **build)
        self.mid = Middle(widths[-1], has_attention, num_groups, **build)
        self.up = nnx.List(
            [
                Level(
                    widths[i + 1],
                    widths[i],
                    num_blocks + 1,
                    "up" if i > 0 else None,
                    num_groups,
                    **build,
                )
                for i in range(len(ch_mult))
            ]
        )
        self.norm_out = normalization.GroupNorm32(
            widths[0], num_groups=num_groups, epsilon=NORM_EPSILON, rngs=rngs
        )
        self.conv_out = conv.Conv2d(widths[0], out_ch, **build)

    def __call__(self, z: jax.Array) -> jax.Array:
        """[B, H, W, in] -> [B, H*f, W*f, out]."""
        h = self.mid(self.conv_in(z))
        for level in reversed(list(self.up)):
            h = level(h)
        return self.conv_out(jax.nn.silu(self.norm_out(h)))


class AutoencoderKL(nnx.Module):
    """Stable Diffusion's first stage; the defaults are its KL-f8 (83,653,863 parameters).

    Fields beyond it: `patch=(ph, pw)` folds ph x pw pixels into channels before the encoder and
    unfolds them after the decoder (cheap downsampling for small models), `num_groups` of the group
    norms. Downsampling in all: patch * 2^(len(ch_mult) - 1).
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        z_channels: int = 4,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 2, 4, 4),
        num_res_blocks: int = 2,
        attention: bool = True,
        patch: tuple[int, int] = (1, 1),
        num_groups: int = 32,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        patch = tuple(patch)
        pixels = patch[0] * patch[1]
        body = (ch, tuple(ch_mult), num_res_blocks, attention, num_groups)
        build = {"dtype": dtype, "rngs": rngs}
        self.encoder = Encoder(pixels * in_channels, 2 * z_channels, *body, **build)
        self.decoder = Decoder(z_channels, pixels * out_channels, *body, **build)
        self.quant_conv = conv.Conv2d(2 * z_channels, 2 * z_channels, (1, 1), **build)
        self.post_quant_conv = conv.Conv2d(z_channels, z_channels, (1, 1), **build)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.z_channels = z_channels
        self.patch = patch
        self.downsampling = tuple(p * 2 ** (len(ch_mult) - 1) for p in patch)

    def encode(self, x_BHWC: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Posterior of the latent, before scaling.

        Args:
          x_BHWC: images; mels in [0, 1] are used as they are, not rescaled to [-1, 1].
        Returns:
          float32 (mean, logvar), each [B, H/f, W/f, z_channels], logvar clamped to [-30, 20].
        Raises:
          ValueError: channels or sides do not fit.
        """
        _, h, w, c = x_BHWC.shape
        fh, fw = self.downsampling
        if c != self.in_channels or h % fh or w % fw:
            raise ValueError(
                f"image is {h}x{w}x{c}; the autoencoder takes {self.in_channels} channels and "
                f"sides that are multiples of {fh} and {fw}"
            )
        moments = self.encoder(patches.space_to_depth(x_BHWC, self.patch))
        moments = self.quant_conv(moments).astype(jnp.float32)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(logvar, *LOGVAR_RANGE)

    def decode(self, z_BHWC: jax.Array) -> jax.Array:
        """Unscaled latents [B, H, W, z_channels] -> float32 images [B, H*f, W*f, out_channels]."""
        x = self.decoder(self.post_quant_conv(z_BHWC))
        return patches.depth_to_space(x, self.patch).astype(jnp.float32)


def sample(mean: jax.Array, logvar: jax.Array, *, key: jax.Array | None) -> jax.Array:
    """mean + exp(logvar / 2) * noise; the mean itself when `key` is None."""
    if key is None:
        return mean
    return mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape, mean.dtype)


def kl_divergence(mean: jax.Array, logvar: jax.Array) -> jax.Array:
    """KL(N(mean, exp(logvar)) || N(0, 1)) per example, summed over the latent: [B] in nats."""
    terms = mean**2 + jnp.exp(logvar) - 1.0 - logvar
    return 0.5 * terms.sum(axis=tuple(range(1, mean.ndim)))


def from_config(config: Mapping[str, Any], *, dtype: Any = None, rngs: nnx.Rngs) -> AutoencoderKL:
    """Builds the autoencoder of `config.model.autoencoder`.

    Raises:
      ValueError: unknown field.
    """
    return configured.build(AutoencoderKL, config, dtype=dtype, rngs=rngs)
