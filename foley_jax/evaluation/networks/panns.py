"""PANNs Cnn14 with its own front end: 2048 features and 527 AudioSet classes of an audio clip.

B batch, L audio samples, T mel frames, F mel bins, C channels.
Source: audioset_tagging_cnn (qiuqiangkong) pytorch/models.py `Cnn14`, `Cnn14_16k`.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.layers import batch_norm, conv_block, dense
from foley_jax.media import mel, specs

CLASSES = 527  # of AudioSet, several may hold at once
EMBED_DIM = 2048
_CHANNELS = (64, 128, 256, 512, 1024, 2048)
_POOLED_BLOCKS = 5  # the last block keeps its size
_FLOOR = 1e-10  # -100 dB

FRONT_ENDS = {
    16000: specs.AudioSpec(
        sample_rate_hz=16000, n_fft=512, hop=160, num_mels=64, fmin_hz=50.0, fmax_hz=8000.0
    ),
    32000: specs.AudioSpec(
        sample_rate_hz=32000, n_fft=1024, hop=320, num_mels=64, fmin_hz=50.0, fmax_hz=14000.0
    ),
}


def log_mel(audio_BL: jax.Array, spec: specs.AudioSpec) -> jax.Array:
    """Mel power in decibels, not below -100: 10 * log10(max(mel, 1e-10)).

    Args:
      audio_BL: float [B, L] in [-1, 1] at the spec's rate.
    Returns:
      float32 [B, T, F], T = 1 + L // hop (100 frames a second).
    Raises:
      ValueError: too few samples to reflect them at the ends.
    Source: torchlibrosa `Spectrogram`, `LogmelFilterBank`.
    """
    spectrum_BTK = mel.stft(audio_BL, spec)
    power_BTK = jnp.square(spectrum_BTK.real) + jnp.square(spectrum_BTK.imag)
    mel_BTF = jnp.einsum(
        "btk,fk->btf", power_BTK, mel.mel_basis(spec), precision=jax.lax.Precision.HIGHEST
    )
    return 10.0 * jnp.log10(jnp.maximum(mel_BTF, _FLOOR))


class Cnn14(nnx.Module):
    """Six conv blocks, mean over frequency, max plus mean over time, two dense layers."""

    def __init__(self, sample_rate_hz: int = 32000, *, rngs: nnx.Rngs):
        """Args:
        sample_rate_hz: 32000 (Cnn14) or 16000 (Cnn14_16k); the networks differ in front end
          and weights.
        """
        if sample_rate_hz not in FRONT_ENDS:
            raise ValueError(
                f"sample rate is {sample_rate_hz} Hz, Cnn14 exists for "
                f"{' and '.join(map(str, sorted(FRONT_ENDS)))} Hz"
            )
        self.spec = FRONT_ENDS[sample_rate_hz]
        self.bn0 = batch_norm.BatchNorm(self.spec.num_mels, rngs=rngs)
        previous = 1
        for index, width in enumerate(_CHANNELS, start=1):
            block = conv_block.ConvBlock(previous, width, dtype=jnp.float32, rngs=rngs)
            setattr(self, f"conv_block{index}", block)
            previous = width
        self.fc1 = dense.dense(previous, EMBED_DIM, rngs=rngs)
        self.fc_audioset = dense.dense(EMBED_DIM, CLASSES, rngs=rngs)

    def __call__(self, audio_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One row an audio clip, whatever its length.

        Args:
          audio_BL: float [B, L] in [-1, 1] at `spec.sample_rate_hz`; at least 0.31 s, for five
            halvings in time.
        Returns:
          (embedding [B, 2048] >= 0, logits [B, 527]); the official `clipwise_output` is the
          sigmoid of the logits.
        Raises:
          ValueError: the audio is too short.
        """
        need = self.spec.hop * (2**_POOLED_BLOCKS - 1)
        if audio_BL.ndim != 2 or audio_BL.shape[1] < need:
            raise ValueError(
                f"audio has shape {audio_BL.shape}, Cnn14 needs [B, L] with L >= {need} "
                f"({need / self.spec.sample_rate_hz:.2f} s at {self.spec.sample_rate_hz} Hz)"
            )
        x = self.bn0(log_mel(audio_BL, self.spec), train=False)[..., None]
        for index in range(1, len(_CHANNELS) + 1):
            pool = (2, 2) if index <= _POOLED_BLOCKS else (1, 1)
            x = getattr(self, f"conv_block{index}")(x, pool, train=False)
        x_BTC = x.mean(axis=2)  # over frequency
        x = nnx.relu(self.fc1(x_BTC.max(axis=1) + x_BTC.mean(axis=1)))
        return x, self.fc_audioset(x)
