"""Generated audio for one video, as users get it."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from foley_jax.inference import jobs
from foley_jax.media import plots
from foley_jax.media import video as video_io


@dataclasses.dataclass(frozen=True)
class Clip:
    """Generated audio for one video.

    Attributes:
      audio: float32 [samples] in about [-1, 1]; `sample_rate` in Hz. Of long videos it is an
        `np.memmap`, and so is `mel_FT`.
      mel_FT: log-mel in [0, 1] that the audio was made from; `frame_s` seconds a frame.
      scores: name -> number: `cavp_similarity` of audio and video, with a classifier
        `alignment`, its probability that they belong together, and where `audio` is beyond full
        scale `gain_db`, by which it is lowered in files.
      video: path of the video the audio belongs to.
      sample: its number among those of its seed.
      fault: why it is no audio, and at which step it became none; empty if it is one.
      has_video: whether there is a video; else `video` is but the clip's name.
    """

    audio: np.ndarray
    sample_rate: int
    mel_FT: np.ndarray
    frame_s: float
    scores: dict[str, float]
    video: Path
    sample: int = 0
    fault: str = ""
    has_video: bool = True

    def save(self, path: str | os.PathLike) -> None:
        """Writes `.wav`, or a video file with the original video and this audio.

        Raises:
          ValueError: the suffix is neither `.wav` nor a video container, or the audio is not
            finite.
        """
        if self.fault:
            raise ValueError(self.fault)
        if not self.has_video and Path(path).suffix.lower() != ".wav":
            raise ValueError(f"{self.video} was made without a video; save it as .wav")
        jobs.save_clip(
            path,
            self.audio,
            self.sample_rate,
            name=str(self.video),
            save_video=lambda to, audio: video_io.mux(self.video, audio, self.sample_rate, to),
        )

    def plot(self, path: str | os.PathLike) -> None:
        """Draws the log-mel over time and frequency into a PNG."""
        plots.save_mel(path, self.mel_FT, self.frame_s, title=self.video.name)
