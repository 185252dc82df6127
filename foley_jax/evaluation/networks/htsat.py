"""HTSAT, a Swin transformer on log-mels: the audio half of LAION-CLAP and of MS-CLAP.

The log-mel of a clip is stretched to 1024 frames and its four quarters are laid under each other,
so that a square image of 256 x 256 results; attention happens in windows of 8 x 8 tokens.
B batch, L audio samples, T mel frames, F mel bins, R tokens along a side of the image, W windows,
N heads, S tokens of a window, C channels.
Source: LAION-AI/CLAP src/laion_clap/clap_module/htsat.py; Liu et al. 2021 (Swin transformer).
"""

from collections.abc import Sequence
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.evaluation.networks import convolution, panns
from foley_jax.layers import batch_norm, dense, encoder_block, norm
from foley_jax.media import specs

MELS = 64
IMAGE = 256  # pixels along a side
_PARTS = IMAGE // MELS  # of the log-mel, one under another
FRAMES = _PARTS * IMAGE  # after stretching
PATCH = 4
WINDOW, _SHIFT = 8, 4  # tokens along a side
HEADS = (4, 8, 16, 32)  # of the four stages
_EPSILON = 1e-5  # of all layer norms
_MASKED = -100.0  # between tokens that are no neighbours
_CUBIC = -0.75  # torch's coefficient


def middle(audio_L: np.ndarray, length: int) -> np.ndarray:
    """The middle of a clip that is longer than `length` samples; a shorter one as it is.

    Raises:
      ValueError: no samples.
    """
    if not len(audio_L):
        raise ValueError("a clip of no samples cannot be repeated")
    start = max(0, len(audio_L) - length) // 2
    return audio_L[start : start + length]


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Weight of a sample at a distance in [0, 2]. Source: torch UpSample.h `cubic_convolution`."""
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance * distance + 1
    far = ((_CUBIC * distance - 5 * _CUBIC) * distance + 8 * _CUBIC) * distance - 4 * _CUBIC
    return np.where(distance <= 1, near, far)


@functools.lru_cache(maxsize=8)
def stretching(num_frames: int) -> np.ndarray:
    """Bicubic interpolation to `FRAMES` frames with both ends kept, as a matrix.

    Frame i lies at i (T - 1) / 1023; beyond an end the last frame counts again.

    Returns:
      float32 [1024, T], read-only.
    Source: torch `interpolate(mode="bicubic", align_corners=True)`.
    """
    place = np.arange(FRAMES, dtype=np.float32) * np.float32((num_frames - 1) / (FRAMES - 1))
    first = np.floor(place)
    matrix = np.zeros((FRAMES, num_frames))
    for tap in range(-1, 3):
        column = np.clip(first + tap, 0, num_frames - 1).astype(int)
        weight = _cubic(np.abs((place - first).astype(np.float64) - tap))
        np.add.at(matrix, (np.arange(FRAMES), column), weight)
    matrix = matrix.astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def to_image(mel_BTF: jax.Array) -> jax.Array:
    """Stretches log-mels in time and lays their quarters under each other.

    Args:
      mel_BTF: float [B, T, 64], 2 <= T <= 1024.
    Returns:
      float32 [B, 256, 256]: row 64 c + f is mel bin f in quarter c, low frequencies on top.
    Raises:
      ValueError: another number of frames or bins.
    """
    b, t, f = mel_BTF.shape
    if f != MELS or not 2 <= t <= FRAMES:
        raise ValueError(f"log-mel is {mel_BTF.shape}, expected [B, 2 to {FRAMES}, {MELS}]")
    x = mel_BTF
    if t < FRAMES:
        x = jnp.einsum("nt,btf->bnf", stretching(t), x, precision=jax.lax.Precision.HIGHEST)
    x = x.reshape(b, _PARTS, IMAGE, MELS).swapaxes(2, 3)  # [B, 4*256, F] -> [B, 4, F, 256]
    return x.reshape(b, IMAGE, IMAGE)


@functools.lru_cache(maxsize=1)
def _pair_of_table() -> np.ndarray:
    """For query and key the row of the bias table: (di + 7) * 15 + dj + 7, int [S, S]."""
    place = np.stack(np.meshgrid(*(np.arange(WINDOW),) * 2, indexing="ij"), -1).reshape(-1, 2)
    apart = place[:, None] - place[None] + WINDOW - 1
    return apart[..., 0] * (2 * WINDOW - 1) + apart[..., 1]


@functools.lru_cache(maxsize=8)
def _mask(side: int) -> np.ndarray:
    """-100 between tokens that meet in a window of the rolled image only, float32 [W, S, S]."""
    part = np.digitize(np.arange(side), (side - WINDOW, side - _SHIFT))
    region = part[:, None] * 3 + part[None]
    count = side // WINDOW
    region_WS = (
        region.reshape(count, WINDOW, count, WINDOW).swapaxes(1, 2).reshape(count**2, WINDOW**2)
    )
    return np.where(region_WS[:, :, None] == region_WS[:, None], 0.0, _MASKED).astype(np.float32)


def _to_windows(x_BRRC: jax.Array) -> jax.Array:
    """[B, R, R, C] -> [B*W, S, C]."""
    b, side, _, c = x_BRRC.shape
    x = x_BRRC.reshape(b, side // WINDOW, WINDOW, side // WINDOW, WINDOW, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, WINDOW**2, c)


def _from_windows(x_WSC: jax.Array, side: int) -> jax.Array:
    """[B*W, S, C] -> [B, R, R, C]."""
    count, c = side // WINDOW, x_WSC.shape[-1]
    x = x_WSC.reshape(-1, count, count, WINDOW, WINDOW, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, side, side, c)


class WindowAttention(encoder_block.SelfAttention):
    """Self-attention with a weight for every offset between two tokens of a window."""

    def __init__(self, channels: int, num_heads: int, *, rngs: nnx.Rngs):
        super().__init__(channels, num_heads, rngs=rngs)
        self.relative_position_bias_table = nnx.Param(
            jnp.zeros(((2 * WINDOW - 1) ** 2, num_heads), jnp.float32)
        )

    def offset_bias(self) -> jax.Array:
        """[N, S, S], to be added to the logits."""
        return self.relative_position_bias_table[...][_pair_of_table()].transpose(2, 0, 1)


class SwinBlock(nnx.Module):
    """Pre-norm attention within windows, which a shifted block moves by half a window, and MLP."""

    def __init__(self, channels: int, num_heads: int, *, shifted: bool, rngs: nnx.Rngs):
        self.norm1 = norm.layer_norm(channels, epsilon=_EPSILON, rngs=rngs)
        self.attn = WindowAttention(channels, num_heads, rngs=rngs)
        self.norm2 = norm.layer_norm(channels, epsilon=_EPSILON, rngs=rngs)
        self.mlp = encoder_block.Mlp(channels, encoder_block.MLP_MULT * channels, rngs=rngs)
        self.shifted = shifted

    def __call__(self, x_BRRC: jax.Array) -> jax.Array:
        """[B, R, R, C] -> [B, R, R, C]."""
        b, side = x_BRRC.shape[:2]
        bias = self.attn.offset_bias()[None]
        h = self.norm1(x_BRRC)
        if self.shifted:
            h = jnp.roll(h, (-_SHIFT, -_SHIFT), (1, 2))
            mask = jnp.asarray(_mask(side))[:, None]
            bias = jnp.tile(bias + mask, (b, 1, 1, 1))  # [W, N, S, S] -> [B*W, N, S, S]
        h = _from_windows(self.attn(_to_windows(h), bias_BNTS=bias), side)
        if self.shifted:
            h = jnp.roll(h, (_SHIFT, _SHIFT), (1, 2))
        x_BRRC = x_BRRC + h
        return x_BRRC + self.mlp(self.norm2(x_BRRC))


class PatchMerging(nnx.Module):
    """Four neighbouring tokens become one of twice the width."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.norm = norm.layer_norm(4 * channels, epsilon=_EPSILON, rngs=rngs)
        self.reduction = dense.dense(4 * channels, 2 * channels, use_bias=False, rngs=rngs)

    def __call__(self, x_BRRC: jax.Array) -> jax.Array:
        """[B, R, R, C] -> [B, R/2, R/2, 2*C]."""
        # rows first: (even, even), (odd, even), (even, odd), (odd, odd)
        parts = [x_BRRC[:, i::2, j::2] for j in range(2) for i in range(2)]
        return self.reduction(self.norm(jnp.concatenate(parts, axis=-1)))


class Stage(nnx.Module):
    """Blocks of one width, every second one shifted, and (but for the last stage) a merging."""

    def __init__(
        self, channels: int, num_heads: int, depth: int, *, side: int, merge: bool, rngs: nnx.Rngs
    ):
        shifts = side > WINDOW  # a single window has nothing to move to
        self.blocks = nnx.List(
            [
                SwinBlock(channels, num_heads, shifted=shifts and j % 2 == 1, rngs=rngs)
                for j in range(depth)
            ]
        )
        self.downsample = PatchMerging(channels, rngs=rngs) if merge else None

    def __call__(self, x_BRRC: jax.Array) -> jax.Array:
        """[B, R, R, C] -> [B, R/2, R/2, 2*C], or as it came in the last stage."""
        for block in self.blocks:
            x_BRRC = block(x_BRRC)
        return x_BRRC if self.downsample is None else self.downsample(x_BRRC)


class PatchEmbed(nnx.Module):
    """Patches of 4 x 4 pixels as tokens, and a layer norm."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        patch = (PATCH, PATCH)
        self.proj = convolution.Conv(1, channels, patch, stride=PATCH, rngs=rngs)
        self.norm = norm.layer_norm(channels, epsilon=_EPSILON, rngs=rngs)

    def __call__(self, image_BHW: jax.Array) -> jax.Array:
        """[B, 256, 256] -> [B, 64, 64, C]."""
        return self.norm(self.proj(image_BHW[..., None]))


class Htsat(nnx.Module):
    """The whole tower: `channels` 128 and depths (2, 2, 12, 2) are "base", 96 and 6 "tiny"."""

    def __init__(
        self, spec: specs.AudioSpec, channels: int, depths: Sequence[int], *, rngs: nnx.Rngs
    ):
        """Args:
        spec: rates and mel filters of the front end; 64 mel bins.
        channels: of the first stage; each stage doubles them.
        depths: blocks of the four stages.
        """
        if spec.num_mels != MELS or len(depths) != len(HEADS):
            raise ValueError(
                f"{spec.num_mels} mel bins and {len(depths)} stages, expected {MELS} and "
                f"{len(HEADS)}"
            )
        self.spec = spec
        self.bn0 = batch_norm.BatchNorm(MELS, rngs=rngs)
        self.patch_embed = PatchEmbed(channels, rngs=rngs)
        layers, last = [], len(depths) - 1
        for i, (depth, heads) in enumerate(zip(depths, HEADS, strict=True)):
            side = {"side": IMAGE // PATCH // 2**i, "merge": i < last}
            layers.append(Stage(channels * 2**i, heads, depth, **side, rngs=rngs))
        self.layers = nnx.List(layers)
        self.norm = norm.layer_norm(channels * 2**last, epsilon=_EPSILON, rngs=rngs)

    def image(self, audio_BL: jax.Array) -> jax.Array:
        """The normalised log-mel as an image, float32 [B, 256, 256].

        Args:
          audio_BL: float [B, L] in [-1, 1], at most 1024 hops long.
        Raises:
          ValueError: the audio is too long, or too short to be reflected at its ends.
        """
        return to_image(self.bn0(panns.log_mel(audio_BL, self.spec), train=False))

    def __call__(self, audio_BL: jax.Array) -> jax.Array:
        """One row an audio clip: the mean of its last 8 x 8 tokens.

        Args:
          audio_BL: as for `image`.
        Returns:
          float32 [B, 8 * channels].
        """
        x = self.patch_embed(self.image(audio_BL))
        for layer in self.layers:
            x = layer(x)
        return self.norm(x).mean(axis=(1, 2))
