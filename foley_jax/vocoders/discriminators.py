"""Critics of waveforms for vocoder training: by period and by spectrogram.

B batch, L audio samples, P period, T time, F frequency bins, C channels.
"""

from collections.abc import Callable, Sequence

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from foley_jax.layers import conv
from foley_jax.media import mel as mel_lib
from foley_jax.runtime import partition

LEAK = 0.1
Opinion = tuple[jax.Array, list[jax.Array]]  # float32 scores, and every layer's features


def _opinion(
    x: jax.Array,
    convs: Sequence[Callable[[jax.Array], jax.Array]],
    conv_post: Callable[[jax.Array], jax.Array],
) -> Opinion:
    """The scores that a critic's layers give x, and what they see in it."""
    features = []
    for layer in convs:
        x = jax.nn.leaky_relu(layer(x), LEAK)
        features.append(x)
    x = conv_post(x).astype(jnp.float32)
    return x, [*features, x]


class PeriodDiscriminator(nnx.Module):
    """Scores every `period`-th sample: strided 1-D convolutions over each of the P phases.

    The source's (k, 1) convolutions over [L / P, P] are these, with the phases in the batch.
    Without the source's weight normalisation. Source: HiFi-GAN, BigVGAN `DiscriminatorP`.
    """

    def __init__(
        self, period: int, *, channels: int = 32, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs
    ):
        widths = [1, *(channels * n for n in (1, 4, 16, 32, 32))]
        build = {"dtype": dtype, "rngs": rngs}
        self.convs = nnx.List(
            [
                conv.Conv1d(a, b, 5, stride=3 if i < 4 else 1, **build)
                for i, (a, b) in enumerate(zip(widths, widths[1:]))
            ]
        )
        self.conv_post = conv.Conv1d(widths[-1], 1, 3, **build)
        self.period = period

    def __call__(self, audio_BL: jax.Array) -> Opinion:
        """float [B, L] -> scores [B * P, T, 1], high for real, and features."""
        missing = -audio_BL.shape[1] % self.period
        x = jnp.pad(audio_BL, ((0, 0), (0, missing)), mode="reflect")
        x = x.reshape(x.shape[0], -1, self.period).swapaxes(1, 2)  # [B, L] -> [B, P, L/P]
        x = x.reshape(-1, x.shape[-1], 1)  # [B, P, L/P] -> [B*P, L/P, 1]
        return _opinion(x, self.convs, self.conv_post)


class _Conv(conv.Conv2d):
    """2-D convolution whose stride is along time alone."""

    def _convolve(self, x_BFTC: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x_BFTC,
            kernel,
            window_strides=(1, self.stride),
            padding=self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class ResolutionDiscriminator(nnx.Module):
    """Scores a magnitude spectrogram of one resolution (n_fft, hop, window).

    The window is rectangular, as in the source. Source: UnivNet, BigVGAN `DiscriminatorR`.
    """

    def __init__(
        self,
        resolution: Sequence[int],
        *,
        channels: int = 32,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        build = {"dtype": dtype, "rngs": rngs}
        shapes = [(1, (3, 9), 1), *[(channels, (3, 9), 2)] * 3, (channels, (3, 3), 1)]
        self.convs = nnx.List(
            [_Conv(width, channels, size, stride=s, **build) for width, size, s in shapes]
        )
        self.conv_post = _Conv(channels, 1, (3, 3), **build)
        self.resolution = tuple(resolution)

    def spectrogram(self, audio_BL: jax.Array) -> jax.Array:
        """Magnitudes, float32 [B, F, T]; n_fft - hop samples are reflected in halves."""
        n_fft, hop, length = self.resolution
        reach = (n_fft - hop) // 2
        padded = jnp.pad(audio_BL.astype(jnp.float32), ((0, 0), (reach, reach)), mode="reflect")
        window = np.zeros(n_fft, np.float32)
        left = (n_fft - length) // 2
        window[left : left + length] = 1.0
        frames = mel_lib.frames(padded, n_fft, hop) * window.reshape(1, 1, -1)
        return jnp.abs(partition.shard_map_batch(jnp.fft.rfft)(frames)).swapaxes(1, 2)

    def __call__(self, audio_BL: jax.Array) -> Opinion:
        """float [B, L] -> scores [B, F, T', 1], high for real, and features."""
        x = self.spectrogram(audio_BL)[..., None]
        return _opinion(x, self.convs, self.conv_post)


class WaveformDiscriminators(nnx.Module):
    """Several periods and several resolutions, each its own critic."""

    def __init__(
        self,
        *,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        resolutions: Sequence[Sequence[int]] = (
            (1024, 120, 600),
            (2048, 240, 1200),
            (512, 50, 240),
        ),
        channels: int = 32,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        build = {"channels": channels, "dtype": dtype, "rngs": rngs}
        self.periods = nnx.List([PeriodDiscriminator(p, **build) for p in periods])
        self.resolutions = nnx.List([ResolutionDiscriminator(r, **build) for r in resolutions])

    def __call__(self, audio_BL: jax.Array) -> list[Opinion]:
        """Every critic's opinion of float [B, L]."""
        return [critic(audio_BL) for critic in (*self.periods, *self.resolutions)]


def critic_loss(real: Sequence[Opinion], fake: Sequence[Opinion]) -> jax.Array:
    """Least squares: sum over critics of mean (1 - real)^2 + mean fake^2, a scalar."""
    return sum(
        jnp.square(1.0 - r).mean() + jnp.square(f).mean() for (r, _), (f, _) in zip(real, fake)
    )


def opinion_loss(fake: Sequence[Opinion]) -> jax.Array:
    """The generator's part: sum over critics of mean (1 - fake)^2, a scalar."""
    return sum(jnp.square(1.0 - score).mean() for score, _ in fake)


def feature_loss(real: Sequence[Opinion], fake: Sequence[Opinion]) -> jax.Array:
    """Feature matching: sum over critics and layers of mean |real - fake|, a scalar."""
    return sum(
        jnp.abs(r.astype(jnp.float32) - f.astype(jnp.float32)).mean()
        for (_, of_real), (_, of_fake) in zip(real, fake)
        for r, f in zip(of_real, of_fake)
    )
