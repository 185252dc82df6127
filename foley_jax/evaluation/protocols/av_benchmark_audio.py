"""The part of a file that av-benchmark's networks hear, and what becomes of their answers.

Channels are averaged, the mean of the whole file is taken off, and only the first `seconds` count;
a shorter audio clip stays as short as it is (av-benchmark pads nothing here, and so takes audio
clips of unlike lengths one at a time). In two things 'default' differs from 'official':
- resampling: soxr at high quality; torchaudio's short filter, as in the source.
- the mean is taken off after resampling; before.
L audio samples, B batch, N windows.
Source: av-benchmark av_bench/data/audio_dataset.py `AudioDataset`, extract.py, panns/models.py.
"""

from collections.abc import Callable, Mapping
import dataclasses
from pathlib import Path

import numpy as np
from scipy import special

from foley_jax.evaluation.protocols import av_benchmark_cache
from foley_jax.media import audio as audio_io
from foley_jax.media import container, hann_resample

RATE_HZ = 16000
_PANNS_MIN_S = 0.31  # five halvings of its frames
_VGGISH_MIN_S = 0.975  # one window


def _tags(features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Cnn14's answers under av-benchmark's names."""
    logits = np.asarray(features["logits"])
    return {
        "logits": logits,
        "2048": features["embedding"],
        "clipwise_output": special.expit(logits),
    }


def _windows(features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {av_benchmark_cache.FEATURES: features["embedding"]}


@dataclasses.dataclass(frozen=True)
class Heard:
    """A cache file that is made of audio clips here.

    Attributes:
      network: of `networks.registry`.
      min_s: length of the shortest audio that the network takes.
      parts: its answers -> the parts of an item.
    """

    network: str
    min_s: float
    parts: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


HEARD: Mapping[str, Heard] = {
    "pann_features": Heard("panns_16k", _PANNS_MIN_S, _tags),
    "vggish_features": Heard("vggish", _VGGISH_MIN_S, _windows),
}


def read(path: Path, seconds: float, min_s: float, *, as_torchaudio: bool = False) -> np.ndarray:
    """The first `seconds` of an audio clip at 16 kHz less the mean of the whole, float32 [L].

    Args:
      min_s: a shorter audio clip is refused.
      as_torchaudio: resample with torchaudio's filter, after the mean is off ('official').
    Raises:
      MediaError: as `audio.load`; "unsupported" of an audio clip shorter than `min_s`.
    """
    if as_torchaudio:
        rate_hz = _native_rate(path)
        audio_L = audio_io.load(path, rate_hz)
        audio_L = hann_resample.resample(_less_mean(audio_L), rate_hz, RATE_HZ)
    else:
        audio_L = _less_mean(audio_io.load(path, RATE_HZ))
    audio_L = audio_L[: int(RATE_HZ * seconds)]
    if len(audio_L) < min_s * RATE_HZ:
        raise container.MediaError(
            "unsupported",
            f"{path}: {len(audio_L) / RATE_HZ:.3f} s of audio, the network needs {min_s} s",
        )
    return audio_L


def _less_mean(audio_L: np.ndarray) -> np.ndarray:
    mean = audio_L.mean(dtype=np.float64) if audio_L.size else 0.0
    return (audio_L - mean).astype(np.float32)


def _native_rate(path: Path) -> int:
    """Samples a second of the first track; any where there is none (`audio.load` refuses it)."""
    with container.open_input(path) as opened:
        tracks = opened.streams.audio
        return tracks[0].rate if tracks else RATE_HZ
