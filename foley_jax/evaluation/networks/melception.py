"""Melception: Inception-v3 on mels, trained on VGGSound's 309 classes by SpecVQGAN's authors.

FID, IS and MKL of the Diff-Foley paper come from it, on 22.05 kHz mels of 80 bins.
B batch, F mel bins, T mel frames, C channels, H = F and W = T in space.
Source: SpecVQGAN evaluation/feature_extractors/melception.py; torchvision `Inception3`.
"""

from collections.abc import Callable, Mapping
import os

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.evaluation.networks import convolution
from foley_jax.layers import dense
from foley_jax.media import mel, specs

CLASSES = 309  # of VGGSound
MELS, FRAMES = 80, 848  # of the official evaluation: 9.8 s
SECONDS = 10.0  # of audio that a mel is made of
FRONT_END = specs.AudioSpec(
    sample_rate_hz=22050, n_fft=1024, hop=256, num_mels=MELS, fmin_hz=125.0, fmax_hz=7600.0
)
STATISTICS_FILE = "train_means_stds_melspec_10s_22050hz.txt"
_TRIMMED = 860  # frames that the official extraction keeps
_EPSILON = 1e-3  # torchvision BasicConv2d
_SMALLEST = 23  # leaves one pixel after four halvings
_NO_PADS = ((0, 0), (0, 0))


def _unit(
    inputs: int, outputs: int, kernel: tuple[int, int], *, rngs: nnx.Rngs, **options
) -> convolution.ConvNorm:
    """torchvision's BasicConv2d; the size stays unless the stride or `pads` say otherwise."""
    options.setdefault("pads", convolution.even(kernel))
    return convolution.ConvNorm(inputs, outputs, kernel, epsilon=_EPSILON, rngs=rngs, **options)


def _mean3(x: jax.Array) -> jax.Array:
    """Mean of 3x3 pixels at stride 1; the zeros beyond the edges count."""
    return convolution.average_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1)))


def _halved(x: jax.Array) -> jax.Array:
    return convolution.max_pool(x, (3, 3), (2, 2), _NO_PADS, fill=-jnp.inf)


def _join(*branches: jax.Array) -> jax.Array:
    return jnp.concatenate(branches, axis=-1)


class MixedA(nnx.Module):
    """1x1, 5x5, two 3x3 and a mean side by side. Source: torchvision `InceptionA`."""

    def __init__(self, inputs: int, pooled: int, *, rngs: nnx.Rngs):
        self.branch1x1 = _unit(inputs, 64, (1, 1), rngs=rngs)
        self.branch5x5_1 = _unit(inputs, 48, (1, 1), rngs=rngs)
        self.branch5x5_2 = _unit(48, 64, (5, 5), rngs=rngs)
        self.branch3x3dbl_1 = _unit(inputs, 64, (1, 1), rngs=rngs)
        self.branch3x3dbl_2 = _unit(64, 96, (3, 3), rngs=rngs)
        self.branch3x3dbl_3 = _unit(96, 96, (3, 3), rngs=rngs)
        self.branch_pool = _unit(inputs, pooled, (1, 1), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return _join(
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(_mean3(x)),
        )


class MixedB(nnx.Module):
    """Halves the size. Source: torchvision `InceptionB`."""

    def __init__(self, inputs: int, *, rngs: nnx.Rngs):
        half = {"stride": 2, "pads": _NO_PADS, "rngs": rngs}
        self.branch3x3 = _unit(inputs, 384, (3, 3), **half)
        self.branch3x3dbl_1 = _unit(inputs, 64, (1, 1), rngs=rngs)
        self.branch3x3dbl_2 = _unit(64, 96, (3, 3), rngs=rngs)
        self.branch3x3dbl_3 = _unit(96, 96, (3, 3), **half)

    def __call__(self, x: jax.Array) -> jax.Array:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return _join(self.branch3x3(x), double, _halved(x))


class MixedC(nnx.Module):
    """7x7 as rows and columns. Source: torchvision `InceptionC`."""

    def __init__(self, inputs: int, width: int, *, rngs: nnx.Rngs):
        self.branch1x1 = _unit(inputs, 192, (1, 1), rngs=rngs)
        self.branch7x7_1 = _unit(inputs, width, (1, 1), rngs=rngs)
        self.branch7x7_2 = _unit(width, width, (1, 7), rngs=rngs)
        self.branch7x7_3 = _unit(width, 192, (7, 1), rngs=rngs)
        self.branch7x7dbl_1 = _unit(inputs, width, (1, 1), rngs=rngs)
        self.branch7x7dbl_2 = _unit(width, width, (7, 1), rngs=rngs)
        self.branch7x7dbl_3 = _unit(width, width, (1, 7), rngs=rngs)
        self.branch7x7dbl_4 = _unit(width, width, (7, 1), rngs=rngs)
        self.branch7x7dbl_5 = _unit(width, 192, (1, 7), rngs=rngs)
        self.branch_pool = _unit(inputs, 192, (1, 1), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        double = x
        for part in range(1, 6):
            double = getattr(self, f"branch7x7dbl_{part}")(double)
        return _join(
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            double,
            self.branch_pool(_mean3(x)),
        )


class MixedD(nnx.Module):
    """Halves the size. Source: torchvision `InceptionD`."""

    def __init__(self, inputs: int, *, rngs: nnx.Rngs):
        half = {"stride": 2, "pads": _NO_PADS, "rngs": rngs}
        self.branch3x3_1 = _unit(inputs, 192, (1, 1), rngs=rngs)
        self.branch3x3_2 = _unit(192, 320, (3, 3), **half)
        self.branch7x7x3_1 = _unit(inputs, 192, (1, 1), rngs=rngs)
        self.branch7x7x3_2 = _unit(192, 192, (1, 7), rngs=rngs)
        self.branch7x7x3_3 = _unit(192, 192, (7, 1), rngs=rngs)
        self.branch7x7x3_4 = _unit(192, 192, (3, 3), **half)

    def __call__(self, x: jax.Array) -> jax.Array:
        seven = x
        for part in range(1, 5):
            seven = getattr(self, f"branch7x7x3_{part}")(seven)
        return _join(self.branch3x3_2(self.branch3x3_1(x)), seven, _halved(x))


class MixedE(nnx.Module):
    """3x3 as rows beside columns. Source: torchvision `InceptionE`."""

    def __init__(self, inputs: int, *, rngs: nnx.Rngs):
        self.branch1x1 = _unit(inputs, 320, (1, 1), rngs=rngs)
        self.branch3x3_1 = _unit(inputs, 384, (1, 1), rngs=rngs)
        self.branch3x3_2a = _unit(384, 384, (1, 3), rngs=rngs)
        self.branch3x3_2b = _unit(384, 384, (3, 1), rngs=rngs)
        self.branch3x3dbl_1 = _unit(inputs, 448, (1, 1), rngs=rngs)
        self.branch3x3dbl_2 = _unit(448, 384, (3, 3), rngs=rngs)
        self.branch3x3dbl_3a = _unit(384, 384, (1, 3), rngs=rngs)
        self.branch3x3dbl_3b = _unit(384, 384, (3, 1), rngs=rngs)
        self.branch_pool = _unit(inputs, 192, (1, 1), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return _join(
            self.branch1x1(x),
            self.branch3x3_2a(three),
            self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(_mean3(x)),
        )


_MIXED: Mapping[str, Callable[..., nnx.Module]] = {
    "Mixed_5b": lambda rngs: MixedA(192, 32, rngs=rngs),
    "Mixed_5c": lambda rngs: MixedA(256, 64, rngs=rngs),
    "Mixed_5d": lambda rngs: MixedA(288, 64, rngs=rngs),
    "Mixed_6a": lambda rngs: MixedB(288, rngs=rngs),
    "Mixed_6b": lambda rngs: MixedC(768, 128, rngs=rngs),
    "Mixed_6c": lambda rngs: MixedC(768, 160, rngs=rngs),
    "Mixed_6d": lambda rngs: MixedC(768, 160, rngs=rngs),
    "Mixed_6e": lambda rngs: MixedC(768, 192, rngs=rngs),
    "Mixed_7a": lambda rngs: MixedD(768, rngs=rngs),
    "Mixed_7b": lambda rngs: MixedE(1280, rngs=rngs),
    "Mixed_7c": lambda rngs: MixedE(2048, rngs=rngs),
}


class Melception(nnx.Module):
    """Inception-v3 with one input channel and without its two early max pools."""

    def __init__(self, num_classes: int = CLASSES, *, rngs: nnx.Rngs):
        inside = {"pads": _NO_PADS, "rngs": rngs}
        self.Conv2d_1a_3x3 = _unit(1, 32, (3, 3), stride=2, **inside)
        self.Conv2d_2a_3x3 = _unit(32, 32, (3, 3), **inside)
        self.Conv2d_2b_3x3 = _unit(32, 64, (3, 3), rngs=rngs)
        self.Conv2d_3b_1x1 = _unit(64, 80, (1, 1), rngs=rngs)
        self.Conv2d_4a_3x3 = _unit(80, 192, (3, 3), **inside)
        for name, make in _MIXED.items():
            setattr(self, name, make(rngs))
        self.fc = dense.dense(2048, num_classes, rngs=rngs)

    def __call__(self, mel_BFT: jax.Array) -> dict[str, jax.Array]:
        """Features at every depth that the official evaluation names.

        Args:
          mel_BFT: float [B, F, T] from `standard_mels`; officially [B, 80, 848], at least 23 x 23.
        Returns:
          "64", "192", "768", "2048": float32 [B, that many], means over space;
          "logits_unbiased": [B, 309], logits without the bias, of which the official code makes
          the Inception Score; "logits": [B, 309], of which it makes the KL.
        Raises:
          ValueError: another number of axes, or too small for the network.
        """
        if mel_BFT.ndim != 3 or min(mel_BFT.shape[1:]) < _SMALLEST:
            raise ValueError(
                f"mel has shape {mel_BFT.shape}, expected [B, F, T] of at least 23 x 23"
            )
        features = {}

        def keep(name: str, x: jax.Array) -> jax.Array:
            features[name] = x.mean(axis=(1, 2))
            return x

        x = self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(mel_BFT[..., None].astype(jnp.float32)))
        x = keep("64", self.Conv2d_2b_3x3(x))
        x = keep("192", self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for name in _MIXED:
            x = getattr(self, name)(x)
            if name == "Mixed_6e":
                keep("768", x)
        keep("2048", x)
        features["logits"] = self.fc(features["2048"])
        features["logits_unbiased"] = features["logits"] - self.fc.bias[...][None]
        return features


def load_statistics(path: str | os.PathLike) -> np.ndarray:
    """Means and deviations by which the mels of both sides are standardised.

    Args:
      path: SpecVQGAN's train_means_stds_melspec_10s_22050hz.txt, a line "mean deviation" for
        every mel bin.
    Returns:
      float32 [80, 2].
    Raises:
      ValueError: another shape, or a deviation that is not positive.
    """
    statistics_F2 = np.loadtxt(path, dtype=np.float32)
    if statistics_F2.shape != (MELS, 2) or not (statistics_F2[:, 1] > 0).all():
        raise ValueError(
            f"{path} holds numbers of shape {statistics_F2.shape}, expected (80, 2): a mean and a "
            f"positive deviation for every mel bin (SpecVQGAN's {STATISTICS_FILE})"
        )
    return statistics_F2


def standard_mels(audio_BL: jax.Array, statistics_F2: jax.Array) -> jax.Array:
    """Returns what the network reads: 9.8 s of log-mel in [0, 1], standardised by bin.

    Audio clips are cut to 10 s or filled up with silence, as the official extraction does.

    Args:
      audio_BL: float [B, L] in [-1, 1] at 22.05 kHz.
      statistics_F2: float [80, 2] from `load_statistics`.
    Returns:
      float32 [B, 80, 848].
    Source: SpecVQGAN feature_extraction/extract_mel_spectrogram.py `TRANSFORMS`; vggishish
    transforms `StandardNormalizeAudio`, `Crop`.
    """
    length = FRONT_END.num_samples(SECONDS)
    x = jnp.asarray(audio_BL, jnp.float32)[:, :length]
    x = jnp.pad(x, ((0, 0), (0, length - x.shape[1])))
    log_mel = mel.log_mel(x, FRONT_END)[..., :_TRIMMED]
    start = (_TRIMMED - FRAMES) // 2
    means_1F1, deviations_1F1 = (statistics_F2[:, i].reshape(1, -1, 1) for i in (0, 1))
    return (log_mel[..., start : start + FRAMES] - means_1F1) / deviations_1F1
