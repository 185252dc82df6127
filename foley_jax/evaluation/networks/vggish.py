"""VGGish: 128 numbers for every 0.96 s of audio; FAD-VGG of av-benchmark and AudioLDM-eval.

B batch, L audio samples, T frames, F mel bins, N windows of 0.96 s, D features.
Source: torchvggish (harritaylor), itself a port of TensorFlow's models/research/audioset/vggish.
"""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.evaluation.networks import convolution
from foley_jax.layers import dense
from foley_jax.media import mel

SAMPLE_RATE_HZ = 16000
EMBED_DIM = 128
FRAMES, MELS = 96, 64  # of one window: 0.96 s, 125-7500 Hz
HOP = 160
_WINDOW, _FFT = 400, 512
_LOW_HZ, _HIGH_HZ = 125.0, 7500.0
_LOG_OFFSET = 0.01
_CONVS = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool")
_DENSE = (4096, 4096, EMBED_DIM)


def _mels(hz: np.ndarray | float) -> np.ndarray:
    """The HTK scale as VGGish writes it."""
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)


@functools.lru_cache(maxsize=1)
def mel_basis() -> np.ndarray:
    """Triangles with straight sides on the mel axis (librosa's are straight in hertz).

    Returns:
      float32 [K, F], K = 257 frequency bins; the bin of 0 Hz counts nowhere. Read-only.
    Source: vggish/mel_features.py `spectrogram_to_mel_matrix`.
    """
    bins_K1 = _mels(np.linspace(0.0, SAMPLE_RATE_HZ / 2, _FFT // 2 + 1))[:, None]
    edges = np.linspace(_mels(_LOW_HZ), _mels(_HIGH_HZ), MELS + 2)
    low_1F, centre_1F, high_1F = edges[None, :-2], edges[None, 1:-1], edges[None, 2:]
    rising = (bins_K1 - low_1F) / (centre_1F - low_1F)
    falling = (high_1F - bins_K1) / (high_1F - centre_1F)
    basis = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    basis[0] = 0.0
    basis.setflags(write=False)
    return basis


def windows_of(num_samples: int) -> int:
    """Whole windows of 0.96 s in an audio clip; a rest at its end is left out."""
    return max(0, 1 + (num_samples - _WINDOW) // HOP) // FRAMES


def log_mel_windows(audio_BL: jax.Array) -> jax.Array:
    """The front end: log(mel + 0.01) of the magnitude spectrum, cut into windows of 0.96 s.

    Args:
      audio_BL: float [B, L] in [-1, 1] at 16 kHz, L >= 15600 (0.975 s).
    Returns:
      float32 [B, N, 96, 64], N = `windows_of(L)`.
    Raises:
      ValueError: not one whole window.
    Source: vggish_input.py `waveform_to_examples`.
    """
    count = windows_of(audio_BL.shape[-1])
    if count < 1:
        need = _WINDOW + (FRAMES - 1) * HOP
        raise ValueError(
            f"audio has {audio_BL.shape[-1]} samples, VGGish needs {need} "
            f"({need / SAMPLE_RATE_HZ:.3f} s at {SAMPLE_RATE_HZ} Hz); repeat or pad the audio"
        )
    frames_BTL = mel.frames(audio_BL.astype(jnp.float32), _WINDOW, HOP)
    amplitude_BTK = jnp.abs(jnp.fft.rfft(frames_BTL * mel.hann(_WINDOW)[None, None], _FFT))
    mel_BTF = jnp.einsum(
        "btk,kf->btf", amplitude_BTK, mel_basis(), precision=jax.lax.Precision.HIGHEST
    )
    log_BTF = jnp.log(mel_BTF + _LOG_OFFSET)[:, : count * FRAMES]
    return log_BTF.reshape(-1, count, FRAMES, MELS)  # [B, N*96, 64] -> [B, N, 96, 64]


class Vggish(nnx.Module):
    """Six convolutions with four pools, three dense layers."""

    def __init__(self, last_relu: bool = True, *, rngs: nnx.Rngs):
        """Args:
        last_relu: clip the embedding at zero, as torchvggish does; av-benchmark (FD-VGG) and
          audioldm_eval (FAD) leave that out.
        """
        previous, convs = 1, []
        for width in _CONVS:
            if width != "pool":
                pads = convolution.even((3, 3))
                convs.append(convolution.Conv(previous, int(width), (3, 3), pads=pads, rngs=rngs))
                previous = int(width)
        self.convs = nnx.List(convs)
        previous, layers = previous * (FRAMES // 16) * (MELS // 16), []
        for width in _DENSE:
            layers.append(dense.dense(previous, width, rngs=rngs))
            previous = width
        self.dense = nnx.List(layers)
        self.last_relu = last_relu

    def __call__(self, windows_BTF: jax.Array) -> jax.Array:
        """One embedding for every window.

        Args:
          windows_BTF: float [B, 96, 64] from `log_mel_windows`, its first two axes merged.
        Returns:
          float32 [B, 128]: the raw embedding, before the PCA and 8 bits of the AudioSet release.
        """
        if windows_BTF.shape[1:] != (FRAMES, MELS):
            raise ValueError(f"windows have shape {windows_BTF.shape}, expected [B, 96, 64]")
        x, index = windows_BTF[..., None], 0
        for width in _CONVS:
            if width == "pool":
                x = convolution.max_pool(x, (2, 2), (2, 2), ((0, 0), (0, 0)), fill=-jnp.inf)
            else:
                x = nnx.relu(self.convs[index](x))
                index += 1
        x = x.reshape(x.shape[0], -1)  # [B, T/16, F/16, C] -> [B, T*F*C/256]
        for layer in self.dense[:-1]:
            x = nnx.relu(layer(x))
        x = self.dense[-1](x)
        return nnx.relu(x) if self.last_relu else x

    def embed(self, audio_BL: jax.Array) -> jax.Array:
        """Embeddings of every window of a batch of audio clips.

        Args:
          audio_BL: float [B, L] in [-1, 1] at 16 kHz.
        Returns:
          float32 [B, N, 128].
        """
        windows = log_mel_windows(audio_BL)
        b, n = windows.shape[:2]
        return self(windows.reshape(b * n, FRAMES, MELS)).reshape(b, n, EMBED_DIM)
