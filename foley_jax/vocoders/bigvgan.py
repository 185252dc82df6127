"""BigVGAN, versions 1 and 2: mel spectrogram to waveform.

B batch, T mel frames, C channels (mel bins at the input), L audio samples = T * product of the
upsampling rates.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.layers import configured, conv
from foley_jax.vocoders import alias_free

KERNEL_STD = 0.01  # HiFi-GAN's `init_weights`
_KERNELS, _DILATIONS = (3, 7, 11), ((1, 3, 5),) * 3


def _normal() -> Any:
    return jax.nn.initializers.normal(KERNEL_STD)


class AmpBlock(nnx.Module):
    """Residual pairs (kind "1") or single convolutions (kind "2") behind Snake activations.

    Source: BigVGAN `AMPBlock1` and `AMPBlock2`; the official names of the parts are kept.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        dilations: Sequence[int],
        *,
        kind: str = "1",
        activation: alias_free.Kind = "snakebeta",
        logscale: bool = True,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        def convs(dilations: Sequence[int]) -> nnx.List:
            build = {"kernel_init": _normal(), "dtype": dtype, "rngs": rngs}
            return nnx.List(
                [
                    conv.Conv1d(channels, channels, kernel_size, dilation=d, **build)
                    for d in dilations
                ]
            )

        if kind not in ("1", "2"):
            raise ValueError(f"resblock is {kind!r}, expected '1' or '2'")
        self.convs = convs(dilations) if kind == "2" else None
        self.convs1 = convs(dilations) if kind == "1" else None
        self.convs2 = convs([1] * len(dilations)) if kind == "1" else None
        self.activations = nnx.List(
            [
                alias_free.Activation1d(channels, kind=activation, logscale=logscale)
                for _ in range(len(dilations) * (2 if kind == "1" else 1))
            ]
        )

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """[B, T, C] -> [B, T, C]."""
        if self.convs is not None:
            for conv, act in zip(self.convs, self.activations):
                x_BTC = x_BTC + conv(act(x_BTC))
            return x_BTC
        first, second = list(self.activations)[::2], list(self.activations)[1::2]
        for conv1, conv2, act1, act2 in zip(self.convs1, self.convs2, first, second):
            x_BTC = x_BTC + conv2(act2(conv1(act1(x_BTC))))
        return x_BTC


class BigVgan(nnx.Module):
    """The generator. Fields are those of the public config.json; see `CONFIGS`.

    Weight normalisation is folded: training moves the weights themselves.
    """

    def __init__(
        self,
        *,
        num_mels: int = 80,
        upsample_rates: Sequence[int] = (4, 4, 2, 2, 2, 2),
        upsample_kernel_sizes: Sequence[int] = (8, 8, 4, 4, 4, 4),
        upsample_initial_channel: int = 1536,
        resblock: str = "1",
        resblock_kernel_sizes: Sequence[int] = _KERNELS,
        resblock_dilation_sizes: Sequence[Sequence[int]] = _DILATIONS,
        activation: alias_free.Kind = "snakebeta",
        snake_logscale: bool = True,
        use_tanh_at_final: bool = True,
        use_bias_at_final: bool = True,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        stages, kernels = len(upsample_rates), len(resblock_kernel_sizes)
        if len(upsample_kernel_sizes) != stages or len(resblock_dilation_sizes) != kernels:
            raise ValueError(
                f"{stages} upsample_rates with {len(upsample_kernel_sizes)} upsample_kernel_sizes, "
                f"{kernels} resblock_kernel_sizes with {len(resblock_dilation_sizes)} "
                "resblock_dilation_sizes; expected equal numbers"
            )
        if upsample_initial_channel % 2**stages:
            raise ValueError(
                f"upsample_initial_channel {upsample_initial_channel} cannot be halved "
                f"{stages} times"
            )
        widths = [upsample_initial_channel // 2**i for i in range(stages + 1)]
        build, snake = {"dtype": dtype, "rngs": rngs}, {"logscale": snake_logscale}
        self.conv_pre = conv.Conv1d(num_mels, widths[0], 7, **build)
        # one module in a list of its own, as the official names have it
        self.ups = nnx.List(
            [
                nnx.List(
                    [
                        conv.ConvTranspose1d(
                            widths[i], widths[i + 1], k, rate, kernel_init=_normal(), **build
                        )
                    ]
                )
                for i, (rate, k) in enumerate(zip(upsample_rates, upsample_kernel_sizes))
            ]
        )
        self.resblocks = nnx.List(
            [
                AmpBlock(width, k, d, kind=resblock, activation=activation, **snake, **build)
                for width in widths[1:]
                for k, d in zip(resblock_kernel_sizes, resblock_dilation_sizes)
            ]
        )
        self.activation_post = alias_free.Activation1d(widths[-1], kind=activation, **snake)
        self.conv_post = conv.Conv1d(
            widths[-1], 1, 7, use_bias=use_bias_at_final, kernel_init=_normal(), **build
        )
        self.num_mels, self.num_kernels = num_mels, kernels
        self.hop = math.prod(upsample_rates)  # samples made of one mel frame
        self.use_tanh_at_final = use_tanh_at_final

    def __call__(self, mel_BTC: jax.Array) -> jax.Array:
        """Mel frames to audio.

        Args:
          mel_BTC: float [B, T, num_mels], ln of the mel for public weights.
        Returns:
          float32 [B, L] in [-1, 1].
        Raises:
          ValueError: another number of mel bins.
        """
        if mel_BTC.shape[-1] != self.num_mels:
            raise ValueError(
                f"mel has shape {mel_BTC.shape}, expected {self.num_mels} bins on its last axis"
            )
        x = self.conv_pre(mel_BTC)
        blocks = list(self.resblocks)
        for i, ups in enumerate(self.ups):
            for up in ups:
                x = up(x)
            several = blocks[i * self.num_kernels : (i + 1) * self.num_kernels]
            x = sum(block(x) for block in several) / self.num_kernels
        x = self.conv_post(self.activation_post(x))[..., 0].astype(jnp.float32)
        return jnp.tanh(x) if self.use_tanh_at_final else jnp.clip(x, -1.0, 1.0)


def _public(
    sample_rate_hz: int,
    num_mels: int,
    fmax_hz: float,
    *,
    n_fft: int = 1024,
    hop: int = 256,
    **fields: Any,
) -> dict[str, Any]:
    mel = {
        "sample_rate_hz": sample_rate_hz,
        "n_fft": n_fft,
        "hop": hop,
        "num_mels": num_mels,
        "fmin_hz": 0.0,
        "fmax_hz": fmax_hz,
    }
    return {**configured.defaults(BigVgan), "num_mels": num_mels, **fields, "mel": mel}


_BASE = {
    "upsample_rates": (8, 8, 2, 2),
    "upsample_kernel_sizes": (16, 16, 4, 4),
    "upsample_initial_channel": 512,
}
_512X = {
    "upsample_rates": (8, 4, 2, 2, 2, 2),
    "upsample_kernel_sizes": (16, 8, 4, 4, 4, 4),
    "n_fft": 2048,
    "hop": 512,
}
_V2 = {"use_tanh_at_final": False, "use_bias_at_final": False}
# public config.json files: the generator's fields, and "mel", the front end it was trained on
# (an AudioSpec's fields; "fmax": null is half the rate)
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "bigvgan_base_22khz_80band": _public(22050, 80, 8000.0, **_BASE),
    "bigvgan_22khz_80band": _public(22050, 80, 8000.0),
    "bigvgan_base_24khz_100band": _public(24000, 100, 12000.0, **_BASE),
    "bigvgan_24khz_100band": _public(24000, 100, 12000.0),
    "bigvgan_v2_22khz_80band_256x": _public(22050, 80, 11025.0, **_V2),
    "bigvgan_v2_22khz_80band_fmax8k_256x": _public(22050, 80, 8000.0, **_V2),
    "bigvgan_v2_24khz_100band_256x": _public(24000, 100, 12000.0, **_V2),
    "bigvgan_v2_44khz_128band_512x": _public(44100, 128, 22050.0, **_512X, **_V2),
}


def from_config(fields: Mapping[str, Any], *, dtype: Any = None, rngs: nnx.Rngs) -> BigVgan:
    """Builds the generator of a config with or without its "mel"."""
    own = {name: value for name, value in fields.items() if name != "mel"}
    return configured.build(BigVgan, own, dtype=dtype, rngs=rngs)
