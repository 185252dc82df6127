"""Vocoders of MMAudio's mels: its own generators, or Griffin-Lim, which needs no training.

B batch, T frames, F mel bins, L audio samples.
"""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.media import specs
from foley_jax.mmaudio import mel as mel_lib
from foley_jax.mmaudio import rates as rates_lib
from foley_jax.vocoders import griffin_lim


class MelGenerator:
    """A `griffin_lim.Vocoder` of the mels that the generator itself was trained on.

    Args:
      generator: float [B, F, T] -> float32 [B, T * hop].
      mel: the front end of these mels.
    """

    def __init__(self, generator: nnx.Module, mel: specs.AudioSpec):
        self.mel = mel
        graphdef, state = nnx.split(generator)
        self.state = nnx.to_pure_dict(state)
        self._run = jax.jit(lambda state, mel_BFT: nnx.merge(graphdef, state)(mel_BFT))

    def sample_rate_hz(self, spec: specs.AudioSpec) -> int:
        """The generator's own rate."""
        del spec
        return self.mel.sample_rate_hz

    def __call__(self, mel_BFT: jax.Array, spec: specs.AudioSpec) -> jax.Array:
        """Audio float32 [B, T * hop] of log-mels [B, F, T].

        Raises:
          ValueError: the generator was trained on mels of another front end.
        """
        return self.apply(self.state, mel_BFT, spec)

    def apply(self, state: Any, mel_BFT: jax.Array, spec: specs.AudioSpec) -> jax.Array:
        """`__call__` with parameters of the caller's, like `state`."""
        if spec != self.mel:
            raise ValueError(f"the mels are {spec}, the vocoder was trained on {self.mel}")
        return self._run(state, mel_BFT)


class GriffinLim:
    """A `griffin_lim.Vocoder` of MMAudio's mels without a network."""

    state = None

    def __init__(self, rates: rates_lib.Rates, iterations: int = 16):
        self.rates = rates

        def run(mel_BFT: jax.Array) -> jax.Array:
            spec, base = rates.audio, 10.0 if rates.log10 else jnp.e
            # the floor stands for silence
            amplitude = jnp.maximum(base ** mel_BFT.astype(jnp.float32) - mel_lib.FLOOR, 0.0)
            magnitude = griffin_lim.mel_to_stft(
                amplitude, spec, iterations=griffin_lim.INVERSION_ITERATIONS
            )
            audio = griffin_lim.griffin_lim(magnitude, spec, iterations=iterations)
            # the first frame's centre is half a hop behind the beginning
            edge = spec.hop // 2
            return jnp.pad(audio, ((0, 0), (edge, spec.hop - edge)))

        self._run = jax.jit(run)

    def sample_rate_hz(self, spec: specs.AudioSpec) -> int:
        """The rate of the mels."""
        return spec.sample_rate_hz

    def __call__(self, mel_BFT: jax.Array, spec: specs.AudioSpec) -> jax.Array:
        """Audio float32 [B, T * hop] of log-mels [B, F, T]."""
        return self.apply(self.state, mel_BFT, spec)

    def apply(self, state: None, mel_BFT: jax.Array, spec: specs.AudioSpec) -> jax.Array:
        """`__call__`; there are no parameters."""
        del state
        if spec != self.rates.audio:
            raise ValueError(f"the mels are {spec}, expected {self.rates.audio}")
        return self._run(mel_BFT)
