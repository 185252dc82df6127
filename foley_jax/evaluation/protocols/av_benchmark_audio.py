"""The part of a file that av-benchmark's networks hear, and what becomes of their answers.

Channels are averaged, the mean of the whole file is taken off, and only the first `seconds` count;
a shorter audio clip stays as short as it is (av-benchmark pads nothing here, and so takes audio
clips of unlike lengths one at a time). In two things 'default' differs from 'official':
- resampling: soxr at high quality; torchaudio's short filter, as in the source.
- the mean is taken off after resampling; before.
For MS-CLAP, which reads files itself, nothing is taken off, and 'official' hears the whole file,
not only `seconds`. Of what is longer than the two CLAPs take (10 s, MS-CLAP 7 s) the source hears a
part by chance, so that nobody can repeat its figure; here it is the middle. The source also lays
the channels of a file one after another for MS-CLAP; here they are averaged in both presets.
Synchformer hears a clip with its mean; 'official' refuses one shorter than `seconds`, 'default' one
shorter than 4.8 s. PaSST hears ten seconds, zeros after the clip. ImageBind's 'official' hears the
first channel of the whole file, and takes the means of its three parts off one after another, also
where they overlap; 'default' hears the mean of the channels of `seconds`, each part for itself.
C channels, L audio samples, B batch, N windows.
Source: av-benchmark av_bench/data/audio_dataset.py `AudioDataset`, extract.py, panns/models.py.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
from pathlib import Path

import numpy as np
from scipy import special

from foley_jax.evaluation.networks import imagebind, imagebind_inputs, laion_clap, ms_clap, passt
from foley_jax.evaluation.protocols import av_benchmark_cache
from foley_jax.media import audio as audio_io
from foley_jax.media import container, hann_resample

RATE_HZ = 16000
_PANNS_MIN_S = 0.31  # five halvings of its frames
_VGGISH_MIN_S = 0.975  # one window
_PASST_MIN_S = 0.05  # more than half a window, for reflection
_IMAGEBIND_MIN_S = 0.025  # one frame
SYNCHFORMER_MIN_S = 4.8  # 14 segments


def _tags(features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Cnn14's answers under av-benchmark's names."""
    logits = np.asarray(features["logits"])
    return {
        "logits": logits,
        "2048": features["embedding"],
        "clipwise_output": special.expit(logits),
    }


def _logits(features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"logits": features["logits"]}


def embedding(features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A network's embedding as the only part of an item."""
    return {av_benchmark_cache.FEATURES: features["embedding"]}


def read(
    path: Path,
    seconds: float,
    min_s: float,
    *,
    as_torchaudio: bool = False,
    rate_hz: int = RATE_HZ,
    without_mean: bool = True,
) -> np.ndarray:
    """The first `seconds` of an audio clip less the mean of the whole, float32 [L].

    Args:
      min_s: a shorter audio clip is refused.
      as_torchaudio: resample with torchaudio's filter, after the mean is off ('official').
      rate_hz: of what is returned.
      without_mean: False leaves the mean in.
    Raises:
      MediaError: as `audio.load`; "unsupported" of an audio clip shorter than `min_s`.
    """
    less_mean = _less_mean if without_mean else np.asarray
    if as_torchaudio:
        native_hz = _native_rate(path)
        audio_L = less_mean(audio_io.load(path, native_hz))
        audio_L = hann_resample.resample(audio_L, native_hz, rate_hz)
    else:
        audio_L = less_mean(audio_io.load(path, rate_hz))
    audio_L = audio_L[: int(rate_hz * seconds)] if seconds < math.inf else audio_L
    if len(audio_L) < max(1, min_s * rate_hz):
        raise container.MediaError(
            "unsupported",
            f"{path}: {len(audio_L) / rate_hz:.3f} s of audio, the network needs {min_s} s",
        )
    return audio_L


def _for_laion_clap(
    path: Path, seconds: float, min_s: float, *, as_torchaudio: bool = False
) -> np.ndarray:
    rate_hz = laion_clap.SAMPLE_RATE_HZ
    audio_L = read(path, seconds, min_s, as_torchaudio=as_torchaudio, rate_hz=rate_hz)
    return laion_clap.fitted(audio_L)


def _for_ms_clap(
    path: Path, seconds: float, min_s: float, *, as_torchaudio: bool = False
) -> np.ndarray:
    reading = {"rate_hz": ms_clap.SAMPLE_RATE_HZ, "without_mean": False}
    seconds = math.inf if as_torchaudio else seconds
    return ms_clap.fitted(read(path, seconds, min_s, as_torchaudio=as_torchaudio, **reading))


def _for_passt(
    path: Path, seconds: float, min_s: float, *, as_torchaudio: bool = False
) -> np.ndarray:
    """Ten seconds, zeros where the clip ends."""
    reading = {"as_torchaudio": as_torchaudio, "rate_hz": passt.RATE_HZ}
    audio_L = read(path, seconds, min_s, **reading)[: passt.NUM_SAMPLES]
    return np.pad(audio_L, (0, passt.NUM_SAMPLES - len(audio_L)))


def _for_synchformer(
    path: Path, seconds: float, min_s: float, *, as_torchaudio: bool = False
) -> np.ndarray:
    """With its mean; 'official' refuses a clip shorter than `seconds`."""
    min_s = max(min_s, seconds) if as_torchaudio else min_s
    return read(path, seconds, min_s, as_torchaudio=as_torchaudio, without_mean=False)


def _for_imagebind(
    path: Path, seconds: float, min_s: float, *, as_torchaudio: bool = False
) -> np.ndarray:
    """Mels of three clips; 'official' hears the whole file, and the first channel alone."""
    rate_hz = imagebind.RATE_HZ
    if as_torchaudio:
        native_hz, audio_CL = audio_io.channels(path)
        audio_CL = np.stack([hann_resample.resample(x, native_hz, rate_hz) for x in audio_CL])
    else:
        audio_CL = read(path, seconds, min_s, rate_hz=rate_hz, without_mean=False)[None]
    clips = imagebind_inputs.audio_clips(audio_CL, in_place=as_torchaudio)
    return np.stack([imagebind_inputs.log_mels(clip) for clip in clips])


Read = Callable[..., np.ndarray]  # as `read`


@dataclasses.dataclass(frozen=True)
class Heard:
    """A cache file that is made of audio clips here.

    Attributes:
      network: of `networks.registry`.
      min_s: length of the shortest audio that the network takes.
      parts: its answers -> the parts of an item.
      read: (path, seconds, min_s, as_torchaudio=) -> what the network takes.
      batch_size: clips together; 1 where their lengths may differ.
      is_audio: whether `read` gives samples, whose silence is flagged.
    """

    network: str
    min_s: float
    parts: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
    read: Read = read
    batch_size: int = 1
    is_audio: bool = True


HEARD: Mapping[str, Heard] = {
    "pann_features": Heard("panns_16k", _PANNS_MIN_S, _tags),
    "vggish_features": Heard("vggish", _VGGISH_MIN_S, embedding),
    "passt_features_embed": Heard("passt", _PASST_MIN_S, embedding, _for_passt, batch_size=4),
    "passt_logits": Heard("passt", _PASST_MIN_S, _logits, _for_passt, batch_size=4),
    "synchformer_audio": Heard("synchformer_audio", SYNCHFORMER_MIN_S, embedding, _for_synchformer),
    "imagebind_audio": Heard(
        "imagebind_audio",
        _IMAGEBIND_MIN_S,
        embedding,
        _for_imagebind,
        batch_size=4,
        is_audio=False,
    ),
    "clap_laion_audio": Heard("laion_clap", 0.0, embedding, _for_laion_clap, batch_size=8),
    "clap_ms_audio": Heard("ms_clap", 0.0, embedding, _for_ms_clap, batch_size=8),
}


def _less_mean(audio_L: np.ndarray) -> np.ndarray:
    mean = audio_L.mean(dtype=np.float64) if audio_L.size else 0.0
    return (audio_L - mean).astype(np.float32)


def _native_rate(path: Path) -> int:
    """Samples a second of the first track; any where there is none (`audio.load` refuses it)."""
    with container.open_input(path) as opened:
        tracks = opened.streams.audio
        return tracks[0].rate if tracks else RATE_HZ
