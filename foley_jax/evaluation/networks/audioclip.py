"""AudioCLIP's audio encoder, ESResNeXt-FBSP: the 1024 numbers behind MM-Diffusion's FAD.

A learnable Fourier-like transform makes a spectrogram, its thirds by frequency are the colours of
an image, and a ResNeXt-50 with attention beside every stage reads it.
B batch, L audio samples, T spectrogram frames, K frequency bins, H W space, C channels.
Source: AudioCLIP (AndreyGuzhov) model/esresnet/{base,fbsp,attention}.py; MM-Diffusion
evaluations/AudioCLIP.
"""

from collections.abc import Mapping, Sequence
import functools

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from foley_jax.evaluation.networks import convolution
from foley_jax.layers import batch_norm, dense
from foley_jax.media import mel

SAMPLE_RATE_HZ = 44100
EMBED_DIM = 1024
_FFT, _WINDOW, _HOP = 2048, 1654, 561
_BINS = _FFT // 2 + 1
_LOW, _HIGH = -32768.0, 32767.0  # what the network's first step expects of its input
_EPSILON = 1e-8  # of the transform
_SILENCE = 1e-18  # stands for a power of 0
_STAGES = (3, 4, 6, 3)  # blocks
_GROUPS = 32
# kernels of the attention beside the four stages and of the last one
_ATTENTION = ((3, 1), (1, 5), (3, 1), (1, 5), (3, 5))

# How an audio clip is embedded. "official" is what MM-Diffusion's evaluation does: audio clips in
# [-1, 1] go in as they are, though the first step takes them for 16-bit integers and leaves a
# signal of 3e-5 in coarse steps; and the network is never put in evaluation mode, so BatchNorm uses
# the statistics of the batch (8 audio clips there): embeddings depend on the batch they are in.
PRESETS: Mapping[str, Mapping[str, bool]] = {
    "default": {"int16_scale": True, "batch_statistics": False},
    "official": {"int16_scale": False, "batch_statistics": True},
}


@functools.lru_cache(maxsize=1)
def blackman_harris() -> np.ndarray:
    """Periodic 4-term window, float32 [1654]. Source: scipy.signal.get_window."""
    angle = 2 * np.pi * np.arange(_WINDOW) / _WINDOW
    terms = (0.35875, -0.48829, 0.14128, -0.01168)
    return sum(a * np.cos(k * angle) for k, a in enumerate(terms)).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _times() -> np.ndarray:
    """float32 [1654]: the middle of 2048 steps from -pi to pi, rounded as torch.linspace rounds.

    Phases reach 3200 radians, where a last bit of these is 2e-4.
    """
    n, step = np.arange(_FFT), np.float64(np.float32(2.0) / np.float32(_FFT - 1))
    line = np.where(n < _FFT // 2, -1.0 + step * n, 1.0 - step * (_FFT - 1 - n))
    times = np.float32(np.pi) * line.astype(np.float32) + np.float32(_EPSILON)
    left = (_FFT - _WINDOW) // 2  # the window is shorter than the transform: zeros beside it
    return times[left : left + _WINDOW]


class Fbsp(nnx.Module):
    """Frequency B-spline transform: wavelet-like kernels with three numbers a bin."""

    def __init__(self, *, rngs: nnx.Rngs):
        del rngs  # nothing is drawn
        self.m = nnx.Param(jnp.zeros((_BINS,), jnp.float32))
        self.fb = nnx.Param(jnp.ones((_BINS,), jnp.float32))
        self.fc = nnx.Param(jnp.arange(_BINS, dtype=jnp.float32))

    def kernels(self) -> tuple[jax.Array, jax.Array]:
        """Real and imaginary part, float32 [K, 1654]: sqrt(fb) sinc(fb t / m)^m exp(-i fc t)."""
        times = jnp.asarray(_times())[None]
        m, fb, fc = (p[...][:, None] for p in (self.m, self.fb, self.fc))
        x = fb * times / (m + _EPSILON)
        window = jnp.where(x == 0, 1.0, jnp.sin(x) / x)
        # a power of a negative number is complex: |w|^m exp(i m pi)
        size = jnp.power(jnp.square(window), 0.5 * m)
        turn = m * jnp.where(window < 0, jnp.pi, 0.0)
        real, imaginary = size * jnp.cos(turn), size * jnp.sin(turn)
        cos, sin = jnp.cos(fc * times), -jnp.sin(fc * times)
        scale = jnp.sqrt(fb) / _FFT**0.5
        return scale * (real * cos - imaginary * sin), scale * (real * sin + imaginary * cos)

    def __call__(self, frames_BTL: jax.Array) -> jax.Array:
        """Power of every bin: [B, T, 1654] -> [B, T, K]."""
        parts = (
            jnp.einsum("btl,kl->btk", frames_BTL, kernel, precision=lax.Precision.HIGHEST)
            for kernel in self.kernels()
        )
        return sum(jnp.square(part) for part in parts)


class Bottleneck(nnx.Module):
    """1x1, grouped 3x3, 1x1, added to the input. Source: torchvision `Bottleneck`."""

    def __init__(self, inputs: int, planes: int, stride: int, shortcut: bool, *, rngs: nnx.Rngs):
        width, outputs = 2 * planes, 4 * planes  # ResNeXt 32x4d
        unit = functools.partial(convolution.ConvNorm, rngs=rngs)
        self.unit1 = unit(inputs, width, (1, 1))
        three = {"pads": convolution.even((3, 3)), "groups": _GROUPS}
        self.unit2 = unit(width, width, (3, 3), stride=stride, **three)
        self.unit3 = unit(width, outputs, (1, 1), relu=False)
        short = functools.partial(unit, inputs, outputs, (1, 1), stride=stride, relu=False)
        self.downsample = short() if shortcut else None

    def __call__(self, x: jax.Array, *, batch_statistics: bool) -> jax.Array:
        call = {"batch_statistics": batch_statistics}
        y = self.unit3(self.unit2(self.unit1(x, **call), **call), **call)
        return nnx.relu(y + (x if self.downsample is None else self.downsample(x, **call)))


def _adaptive_max(x_BHWC: jax.Array, size: Sequence[int]) -> jax.Array:
    """Largest values of windows that together cover the image.

    Source: torch `adaptive_max_pool2d`: window i of n is [floor(i L / n), ceil((i + 1) L / n)).
    """
    x = x_BHWC
    for axis, n in zip((1, 2), size, strict=True):
        length = x.shape[axis]
        i = np.arange(n)
        first, last = i * length // n, -(-(i + 1) * length // n) - 1
        reach = int((last - first).max()) + 1
        picks = [jnp.take(x, np.minimum(first + k, last), axis=axis) for k in range(reach)]
        x = functools.reduce(jnp.maximum, picks)
    return x


class Attention(nnx.Module):
    """Weights in (0, 1) for the output of a stage, from its input. Source: `Attention2d`."""

    def __init__(self, inputs: int, outputs: int, kernel: Sequence[int], *, rngs: nnx.Rngs):
        depth = {"pads": convolution.even(kernel), "groups": inputs, "rngs": rngs}
        self.conv_depth = convolution.Conv(inputs, inputs, kernel, **depth)
        self.conv_point = convolution.Conv(inputs, outputs, (1, 1), rngs=rngs)
        self.bn = batch_norm.BatchNorm(outputs, rngs=rngs)

    def __call__(
        self, x_BHWC: jax.Array, size: Sequence[int], *, batch_statistics: bool
    ) -> jax.Array:
        x = self.conv_point(self.conv_depth(_adaptive_max(x_BHWC, size)))
        return jax.nn.sigmoid(convolution.normalize(self.bn, x, batch_statistics=batch_statistics))


class AudioClip(nnx.Module):
    """The audio half of AudioCLIP."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.fbsp = Fbsp(rngs=rngs)
        self.stem = convolution.ConvNorm(
            3, 64, (7, 7), stride=2, pads=convolution.even((7, 7)), rngs=rngs
        )
        previous, attention = 64, []
        for stage, count in enumerate(_STAGES, start=1):
            planes, blocks = 32 * 2**stage, []
            attention.append(Attention(previous, 4 * planes, _ATTENTION[stage - 1], rngs=rngs))
            for index in range(count):
                stride = 2 if stage > 1 and index == 0 else 1
                blocks.append(Bottleneck(previous, planes, stride, index == 0, rngs=rngs))
                previous = 4 * planes
            setattr(self, f"layer{stage}", nnx.List(blocks))
        attention.append(Attention(previous, previous, _ATTENTION[-1], rngs=rngs))
        self.attention = nnx.List(attention)
        self.fc = dense.dense(previous, EMBED_DIM, rngs=rngs)

    def spectrogram(self, audio_BL: jax.Array, *, int16_scale: bool) -> jax.Array:
        """Decibels of three thirds of the spectrum, low to high, as three channels.

        Args:
          audio_BL: float [B, L] in [-1, 1] at 44.1 kHz.
          int16_scale: bring the audio to the range of 16-bit integers first, which the first
            step then undoes. False: the official evaluation, which leaves that out.
        Returns:
          float32 [B, 341, T, 3], T = 1 + ceil((L - 1654) / 561).
        """
        x = audio_BL.astype(jnp.float32)
        if int16_scale:
            x = x * -_LOW
        # a divisor for every sample: XLA turns a common one into a product with its reciprocal,
        # and of an audio clip in [-1, 1] only so few rounding steps are left here that this shows
        span = lax.optimization_barrier(jnp.full_like(x, _HIGH - _LOW))
        x = (x - _LOW) * 2.0 / span - 1.0
        count = 1 + max(0, -(-(x.shape[-1] - _WINDOW) // _HOP))
        missing = (count - 1) * _HOP + _WINDOW - x.shape[-1]
        x = jnp.pad(x, ((0, 0), (missing // 2, missing - missing // 2)))
        frames_BTL = mel.frames(x, _WINDOW, _HOP) * blackman_harris()[None, None]
        power_BTK = self.fbsp(frames_BTL)
        power_BTK = jnp.where(power_BTK > 0, power_BTK, _SILENCE)
        third = _BINS // 3
        x_BTCH = 10.0 * jnp.log10(
            power_BTK[..., : 3 * third].reshape(*x.shape[:1], count, 3, third)
        )
        return x_BTCH.transpose(0, 3, 1, 2)  # [B, T, 3, H] -> [B, H, T, 3]

    def __call__(
        self, audio_BL: jax.Array, *, int16_scale: bool = True, batch_statistics: bool = False
    ) -> jax.Array:
        """One embedding an audio clip, not normalised in length.

        Args:
          audio_BL: float [B, L] in [-1, 1] at 44.1 kHz; officially L = 70560 (1.6 s).
          int16_scale, batch_statistics: see `PRESETS`; `embed` takes a preset's name.
        Returns:
          float32 [B, 1024].
        Raises:
          ValueError: another shape, or batch statistics of one audio clip.
        """
        if audio_BL.ndim != 2:
            raise ValueError(f"audio has shape {audio_BL.shape}, expected [B, L]")
        if batch_statistics and audio_BL.shape[0] < 2:
            raise ValueError("batch statistics of one audio clip do not exist; give 2 or more (8)")
        norm = {"batch_statistics": batch_statistics}
        x = self.stem(self.spectrogram(audio_BL, int16_scale=int16_scale), **norm)
        x = convolution.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)), fill=-jnp.inf)
        for stage, attention in enumerate(self.attention[:-1], start=1):
            before = x
            for block in getattr(self, f"layer{stage}"):
                x = block(x, **norm)
            x = x * attention(before, x.shape[1:3], **norm)
        weight = self.attention[-1](x, (1, 1), **norm)[:, 0, 0]
        return self.fc(x.mean(axis=(1, 2)) * weight)

    def embed(self, audio_BL: jax.Array, preset: str = "default") -> jax.Array:
        """As a call, with the settings of a preset: "default" or "official"."""
        if preset not in PRESETS:
            raise ValueError(f"preset is {preset!r}, known presets: {', '.join(PRESETS)}")
        return self(audio_BL, **PRESETS[preset])
