"""By what clips are compared: one vector for a span of a file's audio or video.

Without weights: how loud every mel band is over time, and the image made very small. With the
weights of the metric networks: their embeddings.

B batch, L audio samples, T frames, F mel bins, R rows of a descriptor, H W C image.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from pathlib import Path
from typing import Literal

import numpy as np

from foley_jax.evaluation import feature_store
from foley_jax.evaluation.memorisation import neighbours
from foley_jax.evaluation.networks import registry
from foley_jax.evaluation.protocols import feature_rules
from foley_jax.media import audio as audio_io
from foley_jax.media import mel as mel_lib
from foley_jax.media import specs
from foley_jax.media import video as video_io

Medium = Literal["audio", "image"]
AUDIO = specs.AudioSpec(num_mels=64)
RANGE_DB = 50.0  # below the loudest band of the clip; what is weaker counts as silence
FEATURE_S = 0.25  # between features of the audio's descriptor; each reaches as far to either side
IMAGE_SIDE, IMAGE_FPS = 16, 8.0
MAX_FRAMES = 16  # of longer clips, evenly spread
NETWORKS = ("vggish", "panns_16k", "i3d")
NETWORK_SIDE = 64  # pixels of the images that I3D sees (it enlarges them itself)
LEAST_AUDIO_S = 1.0  # for networks; one window of VGGish is 0.96 s


@dataclasses.dataclass(frozen=True)
class Descriptor:
    """A way to compare clips.

    Attributes:
      name: for tables, e.g. "audio: log-mel".
      medium: whether it reads audio or video.
      at: start in seconds -> how features come out of the span of a file that begins there.
      settings: what it depends on, JSON-able.
      units: whether all dimensions have one unit, as `neighbours.Standard.of` takes it.
      output: which of the features it is, of any shape.
    """

    name: str
    medium: Medium
    at: Callable[[float], feature_store.Extraction]
    settings: Mapping[str, object]
    units: neighbours.Units = "one"
    output: str = "features"


def waveform(seconds: float) -> Descriptor:
    """Loudness of 64 mel bands over time, [R * 64] dB in [-50, 0], R = 1 + seconds / 0.25.

    Relative to the clip's loudest band and frame, so that a louder copy is a copy; mean dB under
    overlapping windows of half a second, so that a copy moved by some milliseconds stays near.
    Silence is all -50.
    """
    length = AUDIO.num_samples(seconds)
    settings = {
        "descriptor": "log-mel",
        "seconds": seconds,
        "range_db": RANGE_DB,
        "row_s": FEATURE_S,
    }

    def compute(audio_BL: np.ndarray) -> dict[str, np.ndarray]:
        return {"features": pooled_log_mel(audio_BL)}

    def at(start_s: float) -> feature_store.Extraction:
        return feature_store.Extraction(
            "log-mel",
            feature_store.key_of(start_s=start_s, spec=dataclasses.asdict(AUDIO), **settings),
            functools.partial(read_audio, rate_hz=AUDIO.sample_rate_hz, start_s=start_s, n=length),
            compute,
        )

    return Descriptor("audio: log-mel", "audio", at, settings)


def image(seconds: float) -> Descriptor:
    """Frames of 16 x 16 colours, [T * 16 * 16 * 3] in [0, 255]; 8 a second, but at most 16."""
    video = _spec(seconds, IMAGE_SIDE, IMAGE_FPS, MAX_FRAMES)
    count = video.num_frames(seconds)
    settings = {"descriptor": "pixels", "seconds": seconds, "video": dataclasses.asdict(video)}

    def compute(frames_BTHWC: np.ndarray) -> dict[str, np.ndarray]:
        return {"features": frames_BTHWC.reshape(len(frames_BTHWC), -1).astype(np.float32)}

    def at(start_s: float) -> feature_store.Extraction:
        return feature_store.Extraction(
            "pixels",
            feature_store.key_of(start_s=start_s, **settings),
            functools.partial(read_video, spec=video, start_s=start_s, n=count),
            compute,
            is_audio=False,
        )

    return Descriptor("image: pixels", "image", at, settings)


def network(name: str, seconds: float, networks: feature_rules.Networks) -> Descriptor:
    """Embeddings of a metric network: of all VGGish windows, of PANNs, or I3D's logits (16 frames).

    Args:
      name: of `NETWORKS`, one that `networks` has; loaded when something must be computed.
    """
    entry = registry.NETWORKS[name]
    is_audio = entry.reads == "audio"
    reading: dict[str, object] = {"seconds": seconds}
    if is_audio:
        length = round(max(seconds, LEAST_AUDIO_S) * entry.rate_hz)
        read = functools.partial(read_audio, rate_hz=entry.rate_hz, n=length)
    else:
        video = _spec(seconds, NETWORK_SIDE, MAX_FRAMES / seconds, MAX_FRAMES)
        reading["video"] = dataclasses.asdict(video)
        read = functools.partial(read_video, spec=video, n=MAX_FRAMES)
    first = networks.extraction(
        name, functools.partial(read, start_s=0.0), reading, is_audio=is_audio
    )

    def at(start_s: float) -> feature_store.Extraction:
        key = feature_store.key_of(first=first.key, start_s=start_s)
        return dataclasses.replace(first, key=key, read=functools.partial(read, start_s=start_s))

    medium: Medium = "audio" if is_audio else "image"
    settings = {"network": name, **reading, **networks.identity(name)}
    output = "embedding" if is_audio else "logits"
    return Descriptor(f"{medium}: {name}", medium, at, settings, "each", output)


def all_of(
    seconds: float, networks: feature_rules.Networks | None
) -> tuple[list[Descriptor], dict[str, str]]:
    """The descriptors without weights, and those that a folder of weights allows.

    Args:
      seconds: length of the clips.
      networks: None for the former only.
    Returns:
      Descriptors, and name of a network -> why it is left out.
    """
    found, skipped = [waveform(seconds), image(seconds)], {}
    for name in NETWORKS:
        if networks is None:
            skipped[name] = "skipped: no folder of weights was given"
        elif not networks.has(name):
            skipped[name] = f"skipped: {registry.find(networks.weights).missing[name]}"
        else:
            found.append(network(name, seconds, networks))
    return found, skipped


def pooled_log_mel(audio_BL: np.ndarray) -> np.ndarray:
    """The audio's descriptor, as `audio` says.

    Args:
      audio_BL: float [B, L] at 16 kHz, at least 0.04 s.
    Returns:
      float32 [B, R * F].
    """
    amplitude_BTK = np.abs(np.asarray(mel_lib.stft(audio_BL, AUDIO, pad_mode="constant")))
    power_BTF = amplitude_BTK.astype(np.float64) ** 2 @ mel_lib.mel_basis(AUDIO).T
    loudest = power_BTF.max(axis=(1, 2), keepdims=True)
    faintest = 10.0 ** (-RANGE_DB / 10)
    relative = power_BTF / np.where(loudest > 0, loudest, 1.0)
    level_BTF = 10.0 * np.log10(np.maximum(relative, faintest))
    times_s = np.arange(level_BTF.shape[1]) * AUDIO.frame_s
    centres_s = np.arange(1 + int(audio_BL.shape[1] / AUDIO.sample_rate_hz / FEATURE_S)) * FEATURE_S
    apart = np.abs(times_s - centres_s[:, None]) / FEATURE_S
    weight_RT = np.where(apart < 1, 0.5 + 0.5 * np.cos(np.pi * apart), 0.0)
    weight_RT /= weight_RT.sum(axis=1, keepdims=True)
    pooled_BRF = weight_RT @ level_BTF
    return pooled_BRF.reshape(len(pooled_BRF), -1).astype(np.float32)


def read_audio(path: Path, *, rate_hz: int, start_s: float, n: int) -> np.ndarray:
    """float32 [n] from `start_s` on, silence where there is no more.

    Raises:
      MediaError: as `media.audio.load`.
    """
    return audio_io.load(path, rate_hz, start_s=start_s, duration_s=n / rate_hz)


def read_video(path: Path, *, spec: specs.VideoSpec, start_s: float, n: int) -> np.ndarray:
    """uint8 [n, H, W, 3] from `start_s` on; the last frame stays where there are no more.

    Raises:
      MediaError: as `media.video.read_frames`.
    """
    frames = video_io.read_frames(path, spec, start_s=start_s, duration_s=n / spec.fps)
    return frames[np.minimum(np.arange(n), len(frames) - 1)]


def _spec(seconds: float, side: int, fps: float, most: int) -> specs.VideoSpec:
    return specs.VideoSpec(min(fps, most / seconds), side, side)
