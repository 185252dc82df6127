"""Layers that keep the size of what passes them, as the mel autoencoder is made of.

B batch, T positions, C channels.
Source of the mathematics: Karras et al. 2024 (EDM2), appendix B.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels import dispatch
from foley_jax.layers import conv, dense, initializers

EPSILON = 1e-4
SILU_GAIN = 0.596  # root mean square of SiLU of a standard normal
RESIDUAL = 0.3  # weight of the residual in a sum
CLIP = 256.0  # activations are kept within


def normalise(x: jax.Array, axis: int | tuple[int, ...] = -1) -> jax.Array:
    """x / (1e-4 + root mean square over some axes), computed in float32."""
    x32 = x.astype(jnp.float32)
    rms = jnp.sqrt(jnp.square(x32).mean(axis, keepdims=True))
    return (x32 / (EPSILON + rms)).astype(x.dtype)


def normalised_kernel(kernel: jax.Array) -> jax.Array:
    """A raw kernel [..., in, out] as it is used: every output's weights of norm one.

    Files hold raw kernels, the converter applies this once. A training applies it to raw kernels in
    every forward pass, so that the optimiser's steps keep their size.
    """
    fan_in = kernel.size // kernel.shape[-1]
    return normalise(kernel, tuple(range(kernel.ndim - 1))) / jnp.sqrt(jnp.float32(fan_in))


def silu(x: jax.Array) -> jax.Array:
    """SiLU with unit output for unit input."""
    return jax.nn.silu(x) / SILU_GAIN


def add(a: jax.Array, b: jax.Array) -> jax.Array:
    """(0.7 a + 0.3 b) / sqrt(0.7^2 + 0.3^2)."""
    size = ((1 - RESIDUAL) ** 2 + RESIDUAL**2) ** 0.5
    return ((1 - RESIDUAL) * a + RESIDUAL * b) / size


def clipped(x: jax.Array) -> jax.Array:
    """x within +-256."""
    return jnp.clip(x, -CLIP, CLIP)


def unit_kernel() -> initializers.Initializer:
    """Initialiser of a kernel: standard normal weights, normalised for use."""

    def init(key, shape, dtype=jnp.float32):
        return normalised_kernel(jax.random.normal(key, shape, dtype))

    return initializers.drawn(init)


def convolution(
    in_dim: int, out_dim: int, kernel_size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
) -> nnx.Module:
    """Returns a convolution [B, T, in] -> [B, T, out] without a bias."""
    build = {"kernel_init": unit_kernel(), "dtype": dtype, "rngs": rngs}
    if kernel_size == 1:
        return dense.Pointwise(in_dim, out_dim, **build)
    return conv.Conv1d(in_dim, out_dim, kernel_size, use_bias=False, **build)


class ResBlock(nnx.Module):
    """Unit norm over channels, two convolutions behind SiLU, a weighted sum.

    The shortcut takes the normalised input. Source: MMAudio mmaudio/ext/autoencoder/vae_modules.py
    `ResnetBlock1D`.
    """

    def __init__(self, in_dim: int, out_dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        build = {"dtype": dtype, "rngs": rngs}
        self.conv1 = convolution(in_dim, out_dim, 3, **build)
        self.conv2 = convolution(out_dim, out_dim, 3, **build)
        self.nin_shortcut = None if in_dim == out_dim else convolution(in_dim, out_dim, 1, **build)

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """[B, T, in] -> [B, T, out]."""
        x = normalise(x_BTC)
        h = self.conv2(silu(self.conv1(silu(x))))
        return add(x if self.nin_shortcut is None else self.nin_shortcut(x), h)


class AttentionBlock(nnx.Module):
    """One head whose queries, keys and values have unit norm, a weighted sum.

    The columns of the kernel are ordered [q, k, v][channel]. Source: as above, `AttnBlock1D`.
    """

    def __init__(self, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.qkv = convolution(channels, 3 * channels, 1, dtype=dtype, rngs=rngs)
        self.proj_out = convolution(channels, channels, 1, dtype=dtype, rngs=rngs)

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """[B, T, C] -> [B, T, C]."""
        b, t, c = x_BTC.shape
        qkv = normalise(self.qkv(x_BTC).reshape(b, t, 3, c))
        q, k, v = (qkv[:, :, i, None] for i in range(3))  # [B, T, 1, C]
        seen = dispatch.attention(q, k, v).reshape(b, t, c)
        return add(x_BTC, self.proj_out(seen))


class Middle(nnx.Module):
    """A residual block, attention, a residual block."""

    def __init__(self, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        build = {"dtype": dtype, "rngs": rngs}
        self.block_1 = ResBlock(channels, channels, **build)
        self.attn_1 = AttentionBlock(channels, **build)
        self.block_2 = ResBlock(channels, channels, **build)

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """[B, T, C] -> [B, T, C]."""
        return clipped(self.block_2(self.attn_1(self.block_1(x_BTC))))


class Downsample(nnx.Module):
    """A map of every position, the mean of pairs, another map."""

    def __init__(self, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.conv1 = convolution(channels, channels, 1, dtype=dtype, rngs=rngs)
        self.conv2 = convolution(channels, channels, 1, dtype=dtype, rngs=rngs)

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """[B, T, C] -> [B, T / 2, C]."""
        b, t, c = x_BTC.shape
        pairs = self.conv1(x_BTC).reshape(b, t // 2, 2, c)
        return self.conv2(pairs.mean(2))


class Upsample(nnx.Module):
    """Every position twice, then a convolution."""

    def __init__(self, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.conv = convolution(channels, channels, 3, dtype=dtype, rngs=rngs)

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """[B, T, C] -> [B, 2 T, C]."""
        b, t, c = x_BTC.shape
        twice = jnp.broadcast_to(x_BTC[:, :, None], (b, t, 2, c)).reshape(b, 2 * t, c)
        return self.conv(twice)


class Level(nnx.Module):
    """Residual blocks of one width, and what changes the number of positions after them."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        num_blocks: int,
        *,
        change: str = "",
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Args:
        change: "" keeps the positions, "down" halves, "up" doubles them.
        """
        build = {"dtype": dtype, "rngs": rngs}
        widths = [in_dim, *[out_dim] * num_blocks]
        self.block = nnx.List([ResBlock(a, b, **build) for a, b in zip(widths, widths[1:])])
        self.downsample = Downsample(out_dim, **build) if change == "down" else None
        self.upsample = Upsample(out_dim, **build) if change == "up" else None

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """[B, T, in] -> [B, T', out]."""
        for block in self.block:
            x_BTC = clipped(block(x_BTC))
        if self.downsample is not None:
            x_BTC = self.downsample(x_BTC)
        return x_BTC if self.upsample is None else self.upsample(x_BTC)
