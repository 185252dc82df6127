"""A BigVGAN as a vocoder of our log-mels, with a bridge between two mel front ends.

B batch, T frames, F mel bins, K frequency bins, L audio samples.
"""

from collections.abc import Mapping
import dataclasses
import functools
import math
from typing import Any, Literal

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.media import mel as mel_lib
from foley_jax.media import specs
from foley_jax.vocoders import bigvgan
from foley_jax.vocoders import griffin_lim as vocoder_lib

LN_FLOOR = 1e-5  # smallest mel amplitude of the public generators; BigVGAN meldataset.py
HIGHEST = jax.lax.Precision.HIGHEST
Scale = Literal["ln", "unit"]


def to_unit_input(mel_BFT: jax.Array) -> jax.Array:
    """Our log-mels in [0, 1] as input of a generator trained on them: [B, T, F] in [-1, 1]."""
    return 2.0 * jnp.swapaxes(mel_BFT, -1, -2) - 1.0


def bridged_frames(num_frames: int, ours: specs.AudioSpec, theirs: specs.AudioSpec) -> int:
    """Their frames that cover the time from our first frame's centre to our last one's."""
    seconds = (num_frames - 1) * ours.frame_s
    return max(1, math.ceil(seconds / theirs.frame_s - 1e-9))


@functools.partial(jax.jit, static_argnames=("ours", "theirs", "iterations"))
def bridge(
    mel_BFT: jax.Array, ours: specs.AudioSpec, theirs: specs.AudioSpec, *, iterations: int = 32
) -> jax.Array:
    """Our log-mels as the mels of a public BigVGAN: another rate, scale, bank and frame time.

    Amplitudes are interpolated linearly to the centres of their frames, (i + 1/2) hop (their
    padding is (n_fft - hop) / 2; ours are centred at i hop), turned into a linear spectrogram
    by non-negative least squares, and summed through their filters evaluated at our frequencies.
    Equal windows in samples are unequal in seconds: a tone comes out right without a factor, noise
    too strong by (rate' / rate)^(1/2); the factor between, its fourth root, is wrong by at most
    0.7 dB for 16 to 22.05 kHz. Nothing is known above our highest filter; there the mel is at its
    floor.

    Args:
      mel_BFT: log-mel in [0, 1], float [B, F, T].
      iterations: of the inversion, see `media.vocoder.mel_to_stft`.
    Returns:
      ln of the mel amplitude, at least ln 1e-5, float32 [B, T', theirs.num_mels], T' as
      `bridged_frames`.
    Raises:
      ValueError: other window lengths in samples, or another number of mel bins than `ours`.
    Source of their scale: BigVGAN meldataset.py `mel_spectrogram`.
    """
    if ours.n_fft != theirs.n_fft:
        raise ValueError(
            f"windows of {ours.n_fft} and {theirs.n_fft} samples; the bridge needs equal ones"
        )
    if mel_BFT.shape[-2] != ours.num_mels:
        raise ValueError(f"mel has shape {mel_BFT.shape}, expected {ours.num_mels} bins, then time")
    count = bridged_frames(mel_BFT.shape[-1], ours, theirs)
    centre_s = (np.arange(count) + 0.5) * theirs.frame_s
    place = np.clip(centre_s / ours.frame_s, 0.0, mel_BFT.shape[-1] - 1.0)
    left = np.minimum(np.floor(place).astype(np.int32), max(mel_BFT.shape[-1] - 2, 0))
    right = np.minimum(left + 1, mel_BFT.shape[-1] - 1)
    part = (place - left).astype(np.float32).reshape(1, 1, -1)
    amplitude = mel_lib.amplitude(mel_BFT)
    # 0 stands for 1e-4 or less; taken as silence, it does not hiss
    amplitude = jnp.where(mel_BFT <= 0.0, 0.0, amplitude)
    amplitude = (1.0 - part) * amplitude[..., left] + part * amplitude[..., right]
    linear_BTK = vocoder_lib.mel_to_stft(amplitude, ours, iterations=iterations)
    mel_BTF = jnp.matmul(linear_BTK, _filters(ours, theirs).T, precision=HIGHEST)
    return jnp.log(jnp.maximum(mel_BTF, LN_FLOOR))


def _filters(ours: specs.AudioSpec, theirs: specs.AudioSpec) -> np.ndarray:
    """Their filters at our bins' frequencies, with the factor of `bridge`: float32 [F', K]."""
    ratio = theirs.sample_rate_hz / ours.sample_rate_hz
    # Slaney filters are functions of Hz; none depends on the rate
    known = min(theirs.fmax_hz, ours.sample_rate_hz / 2)
    basis = _bank(theirs, ours.sample_rate_hz, known)
    return basis * np.float32(ratio**-0.25)


@functools.lru_cache(maxsize=8)
def _bank(theirs: specs.AudioSpec, rate_hz: int, known_hz: float) -> np.ndarray:
    """Their filters sampled at another rate's bins; those that reach above `known_hz` are zero."""
    if known_hz == theirs.fmax_hz:
        spec = dataclasses.replace(theirs, sample_rate_hz=rate_hz)
        return mel_lib.mel_basis(spec)
    # twice the rate and the window: the same bins, and none missing up to theirs.fmax_hz
    times = math.ceil(2 * theirs.fmax_hz / rate_hz)
    spec = dataclasses.replace(theirs, sample_rate_hz=times * rate_hz, n_fft=times * theirs.n_fft)
    return mel_lib.mel_basis(spec)[:, : theirs.n_fft // 2 + 1]


class NeuralVocoder:
    """A `media.vocoder.Vocoder`: a generator with what it must be given.

    Attributes:
      mel: the front end the generator was trained on; its hop is the generator's.
      scale: "ln" for the public generators (through `bridge`), "unit" for one of the vocoder task,
        trained on our own log-mels.
    """

    def __init__(self, generator: bigvgan.BigVgan, mel: specs.AudioSpec, *, scale: Scale = "ln"):
        if scale not in ("ln", "unit"):
            raise ValueError(f"scale is {scale!r}, expected 'ln' or 'unit'")
        if (generator.num_mels, generator.hop) != (mel.num_mels, mel.hop):
            raise ValueError(
                f"the generator makes {generator.hop} samples of {generator.num_mels} mel bins, "
                f"its front end has hop {mel.hop} and {mel.num_mels} bins"
            )
        self.mel, self.scale = mel, scale
        graphdef, state = nnx.split(generator)
        self.state = nnx.to_pure_dict(state)
        self._run = jax.jit(lambda state, mel_BTF: nnx.merge(graphdef, state)(mel_BTF))

    @classmethod
    def public(cls, generator: bigvgan.BigVgan, model: Mapping[str, Any]) -> "NeuralVocoder":
        """Makes one of a public generator and its `config.model` (of `bigvgan.CONFIGS`)."""
        return cls(generator, specs.AudioSpec(**model["mel"]))

    def sample_rate_hz(self, spec: specs.AudioSpec) -> int:
        """The generator's own rate, whatever `spec` is."""
        del spec
        return self.mel.sample_rate_hz

    def __call__(self, mel_BFT: jax.Array, spec: specs.AudioSpec) -> jax.Array:
        """Audio of our log-mels at the generator's rate.

        Args:
          mel_BFT: log-mel in [0, 1], float [B, F, T].
          spec: their front end.
        Returns:
          float32 [B, L] in [-1, 1]: `bridged_frames` * hop samples ("ln") or T * hop ("unit").
        Raises:
          ValueError: a "unit" generator was trained on mels of another front end.
        """
        return self.apply(self.state, mel_BFT, spec)

    def apply(self, state: Any, mel_BFT: jax.Array, spec: specs.AudioSpec) -> jax.Array:
        """`__call__` with parameters of the caller's, like `state`."""
        if self.scale == "ln":
            return self._run(state, bridge(mel_BFT, spec, self.mel))
        if spec != self.mel:
            raise ValueError(f"the mels are {spec}, the vocoder was trained on {self.mel}")
        return self._run(state, to_unit_input(mel_BFT))
