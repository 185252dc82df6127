"""YAMNet: 521 AudioSet classes and 1024 numbers for every 0.96 s of audio, twice a second.

MobileNet v1 on VGGish's log-mels. Of its weights the release of 2019 is read: BatchNorm without
scale, epsilon 1e-4.
B batch, L audio samples, T frames, F mel bins, N windows of 0.96 s, K classes, D features.
Source: tensorflow/models research/audioset/yamnet: params.py, features.py, yamnet.py.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.evaluation.networks import convolution, vggish
from foley_jax.layers import dense
from foley_jax.media import mel

SAMPLE_RATE_HZ = 16000
CLASSES = 521
EMBED_DIM = 1024
FRAMES, MELS = vggish.FRAMES, vggish.MELS
STEP = 48  # frames between two windows
LEAST_SAMPLES = 15600  # 0.975 s: one window
_WINDOW, _FFT, _HOP = 400, 512, 160
_STEP_SAMPLES = STEP * _HOP
_LOG_OFFSET = 0.001
_EPSILON = 1e-4
LEAST_SCORE = 1e-6  # float32 sigmoids of classes that are out of the question are noise below it
_FIRST = 32
# stride and width of each separable convolution
_LAYERS = (
    *((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512)),
    *((1, 512),) * 5,
    *((2, 1024), (1, 1024)),
)


def windows_of(num_samples: int, *, pad_rest: bool = False) -> int:
    """Windows of an audio clip, at least one; `pad_rest` as `log_mel_windows` takes it."""
    rest = max(0, num_samples - LEAST_SAMPLES)
    return 1 + (-(-rest // _STEP_SAMPLES) if pad_rest else rest // _STEP_SAMPLES)


def whole_samples(num_samples: int) -> int:
    """Samples that the windows of an audio clip reach, without a rest at its end."""
    return min(num_samples, LEAST_SAMPLES + (windows_of(num_samples) - 1) * _STEP_SAMPLES)


def log_mel_windows(audio_BL: jax.Array, *, pad_rest: bool = False) -> jax.Array:
    """The front end: log(mel + 0.001) of the magnitude spectrum, windows of 0.96 s every 0.48 s.

    Audio shorter than a window is filled up with silence.

    Args:
      audio_BL: float [B, L] in [-1, 1] at 16 kHz, L >= 1.
      pad_rest: fill a rest at the end up with silence, up to 0.48 s of it, as the official code
        does since 2020; else the rest is left out, as before.
    Returns:
      float32 [B, N, 96, 64], N = `windows_of(L)`.
    Raises:
      ValueError: no samples, or more axes.
    Source: features.py `waveform_to_log_mel_spectrogram_patches`, `pad_waveform`.
    """
    if audio_BL.ndim != 2 or not audio_BL.shape[1]:
        raise ValueError(f"audio has shape {audio_BL.shape}, expected [B, L] with L >= 1")
    count = windows_of(audio_BL.shape[1], pad_rest=pad_rest)
    length = LEAST_SAMPLES + (count - 1) * _STEP_SAMPLES
    missing = max(0, length - audio_BL.shape[1])
    padded_BL = jnp.pad(audio_BL.astype(jnp.float32)[:, :length], ((0, 0), (0, missing)))
    frames_BTL = mel.frames(padded_BL, _WINDOW, _HOP)
    amplitude_BTK = jnp.abs(jnp.fft.rfft(frames_BTL * mel.hann(_WINDOW)[None, None], _FFT))
    mel_BTF = jnp.einsum(
        "btk,kf->btf", amplitude_BTK, vggish.mel_basis(), precision=jax.lax.Precision.HIGHEST
    )
    log_BTF = jnp.log(mel_BTF + _LOG_OFFSET)
    return jnp.stack([log_BTF[:, i * STEP : i * STEP + FRAMES] for i in range(count)], axis=1)


class Unit(nnx.Module):
    """Convolution over TensorFlow's SAME padding, BatchNorm, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, groups: int, *, rngs: nnx.Rngs
    ):
        self.kernel, self.stride = (kernel,) * 2, (stride,) * 2
        self.unit = convolution.ConvNorm(
            *(inputs, outputs, self.kernel),
            stride=stride,
            groups=groups,
            epsilon=_EPSILON,
            rngs=rngs,
        )

    def __call__(self, x_BTFC: jax.Array) -> jax.Array:
        return self.unit(x_BTFC, convolution.same(x_BTFC.shape[1:-1], self.kernel, self.stride))


class Yamnet(nnx.Module):
    """A convolution, thirteen separable ones (each of one channel, then of one place), a layer."""

    def __init__(self, num_classes: int = CLASSES, *, rngs: nnx.Rngs):
        units, width = [Unit(1, _FIRST, 3, 2, 1, rngs=rngs)], _FIRST
        for stride, outputs in _LAYERS:
            units.append(Unit(width, width, 3, stride, width, rngs=rngs))
            units.append(Unit(width, outputs, 1, 1, 1, rngs=rngs))
            width = outputs
        self.units = nnx.List(units)
        self.logits = dense.dense(width, num_classes, rngs=rngs)

    def __call__(self, windows_BTF: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Embedding and class logits of every window; YAMNet's scores are their sigmoid.

        Args:
          windows_BTF: float [B, 96, 64] from `log_mel_windows`, its first two axes merged.
        Returns:
          float32 [B, 1024] and [B, 521].
        """
        if windows_BTF.shape[1:] != (FRAMES, MELS):
            raise ValueError(f"windows have shape {windows_BTF.shape}, expected [B, 96, 64]")
        x = windows_BTF[..., None].astype(jnp.float32)
        for unit in self.units:
            x = unit(x)
        embedding_BD = x.mean(axis=(1, 2))  # [B, T/32, F/32, D] -> [B, D]
        return embedding_BD, self.logits(embedding_BD)

    def embed(self, audio_BL: jax.Array, *, pad_rest: bool = False) -> tuple[jax.Array, jax.Array]:
        """Embeddings and logits of every window of a batch of audio clips.

        Args:
          audio_BL: float [B, L] in [-1, 1] at 16 kHz.
          pad_rest: see `log_mel_windows`.
        Returns:
          float32 [B, N, 1024] and [B, N, 521].
        """
        windows = log_mel_windows(audio_BL, pad_rest=pad_rest)
        b, n = windows.shape[:2]
        found = self(windows.reshape(b * n, FRAMES, MELS))  # [B, N, T, F] -> [B*N, T, F]
        return tuple(x.reshape(b, n, -1) for x in found)  # [B*N, ...] -> [B, N, ...]


def log_scores(logits_BNK: jax.Array) -> jax.Array:
    """Log of every class's score, the mean over an audio clip's windows, at least 1e-6.

    YAMNet has a yes or no for every class, so its scores do not sum to one. The softmax of what is
    returned is the scores divided by their sum, which KL and Inception Score compare.

    Args:
      logits_BNK: float [B, N, 521].
    Returns:
      float32 [B, 521].
    """
    scores_BK = jax.nn.sigmoid(logits_BNK.astype(jnp.float32)).mean(axis=1)
    return jnp.log(jnp.maximum(scores_BK, LEAST_SCORE))
