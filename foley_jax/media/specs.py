"""Rates and lengths of audio and video; every other length in the code is derived here."""

import dataclasses
import math
from typing import Literal, get_args


@dataclasses.dataclass(frozen=True)
class AudioSpec:
    """Mono audio and its log-mel front end.

    Defaults are Diff-Foley's latent-diffusion front end (hop 256); CAVP uses `hop=250`.
    Raises:
      ValueError: a number is not finite, not above zero, or `fmin_hz` not below `fmax_hz`.
    Source: data_preprocess/wav2spec.py.
    """

    sample_rate_hz: int = 16000
    n_fft: int = 1024
    hop: int = 256  # samples between mel frames
    num_mels: int = 128
    fmin_hz: float = 125.0
    fmax_hz: float = 7600.0

    def __post_init__(self):
        for name in ("sample_rate_hz", "n_fft", "hop", "num_mels", "fmax_hz"):
            _check_positive(name, getattr(self, name))
        if not 0 <= self.fmin_hz < self.fmax_hz:
            raise ValueError(f"fmin_hz is {self.fmin_hz}, expected 0 to below {self.fmax_hz}")

    @property
    def frame_s(self) -> float:
        """Seconds between two mel frames."""
        return self.hop / self.sample_rate_hz

    def num_samples(self, seconds: float) -> int:
        """Samples in `seconds` of audio, rounded to the nearest."""
        return round(seconds * self.sample_rate_hz)

    def num_frames(self, num_samples: int) -> int:
        """Mel frames of `num_samples` samples with centred windows: 1 + samples // hop."""
        return 1 + num_samples // self.hop


Fit = Literal["stretch", "stretch_cubic", "letterbox", "crop"]
Pick = Literal["shown", "nearest", "first_after"]


@dataclasses.dataclass(frozen=True)
class VideoSpec:
    """Image: frame i shows what is seen at i / fps seconds, at one size.

    Images of another shape are fitted as `media.fitting` says: "stretch" (Diff-Foley) and
    "stretch_cubic" (MMAudio's CLIP) give up their aspect ratio, "letterbox" (MM-Diffusion) keeps
    it and adds black bars, "crop" (Synchformer) keeps it and cuts off what is too much.
    `antialias` smooths what is made smaller. `pick` is how a frame is chosen where the video has
    another rate: "shown" on screen at that time; "nearest" in time, as ffmpeg's `fps` filter does;
    or "first_after", as MMAudio's demo does, which is late by up to a frame (see `media.video`).

    Raises:
      ValueError: an unknown fit or pick, or a number that is not finite or not above zero.
    """

    fps: float = 4.0
    height: int = 224
    width: int = 224
    fit: Fit = "stretch"
    antialias: bool = True
    pick: Pick = "shown"

    def __post_init__(self):
        for name in ("fps", "height", "width"):
            _check_positive(name, getattr(self, name))
        if self.fit not in get_args(Fit):
            raise ValueError(f"fit is {self.fit!r}, expected one of {', '.join(get_args(Fit))}")
        if self.pick not in get_args(Pick):
            raise ValueError(f"pick is {self.pick!r}, expected one of {', '.join(get_args(Pick))}")

    def num_frames(self, seconds: float) -> int:
        """Frames at times 0, 1/fps, ... that lie before `seconds`."""
        return max(0, int(-(-round(seconds * self.fps * 1e6) // 1_000_000)))


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}, expected a finite number above 0")
