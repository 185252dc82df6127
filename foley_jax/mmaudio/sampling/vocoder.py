"""A generator of MMAudio as a vocoder of its mels.

B batch, T frames, F mel bins, L audio samples.
"""

from typing import Any

from flax import nnx
import jax

from foley_jax.media import specs


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
