"""Rates and lengths of MMAudio: audio, mels, latents, and the features of images.

Two autoencoders share everything else: "16k" and "44k". A latent is two mel frames.
"""

import dataclasses
import math
from typing import NamedTuple

from foley_jax.media import specs

WINDOW_S = 8.0  # what every released network was trained on
FRAMES_A_LATENT = 2  # mel frames
TEXT_TOKENS = 77
CLIP_FPS, SYNC_FPS = 8, 25
SEGMENT_FRAMES, SEGMENT_STRIDE = 16, 8  # of SYNC_FPS: 0.64 s, and one begins every 0.32 s
SEGMENT_S = SEGMENT_STRIDE / SYNC_FPS
SEGMENT_FEATURES = 8  # each of two frames

# what CLIP sees, and what Synchformer sees (spec: pictures)
CLIP_VIDEO = specs.VideoSpec(CLIP_FPS, 384, 384, "stretch_cubic", pick="nearest")
SYNC_VIDEO = specs.VideoSpec(SYNC_FPS, 224, 224, "crop", pick="nearest")


class Lengths(NamedTuple):
    """How many of each there are in an audio clip.

    Attributes:
      latents: N, of the flow network.
      clip: V, frames that CLIP sees.
      sync: S, features of Synchformer, `SEGMENT_FEATURES` to a segment.
      samples: of the audio that the vocoder makes of the latents.
    """

    latents: int
    clip: int
    sync: int
    samples: int

    @property
    def segments(self) -> int:
        """Segments of Synchformer."""
        return self.sync // SEGMENT_FEATURES


@dataclasses.dataclass(frozen=True)
class Rates:
    """One of the two forms of audio.

    Attributes:
      name: "16k" or "44k".
      audio: rate, window and bank of its mels; frames are not centred, see `mel.log_mel`.
      channels: C, of a latent.
      log10: whether mels are log10 of amplitudes, or natural logarithms.
    """

    name: str
    audio: specs.AudioSpec
    channels: int
    log10: bool

    @property
    def latent_s(self) -> float:
        """Seconds of a latent."""
        return FRAMES_A_LATENT * self.audio.frame_s

    def lengths(self, seconds: float) -> Lengths:
        """Lengths for a duration, as the official code rounds them.

        Raises:
          ValueError: too short for one segment of Synchformer (0.64 s).
        """
        # in float64 and in this order: others round another way
        latents = math.ceil(seconds * self.audio.sample_rate_hz / self.audio.hop / FRAMES_A_LATENT)
        segments = (seconds * SYNC_FPS - SEGMENT_FRAMES) // SEGMENT_STRIDE + 1
        if not segments >= 1:
            raise ValueError(
                f"duration is {seconds:g} s, expected at least {SEGMENT_FRAMES / SYNC_FPS} s"
            )
        return Lengths(
            latents=latents,
            clip=int(seconds * CLIP_FPS),
            sync=int(segments * SEGMENT_FRAMES * SEGMENT_FEATURES / SEGMENT_FRAMES),
            samples=latents * FRAMES_A_LATENT * self.audio.hop,
        )


RATES = {
    rates.name: rates
    for rates in (
        Rates("16k", specs.AudioSpec(16000, 1024, 256, 80, 0.0, 8000.0), 20, log10=True),
        Rates("44k", specs.AudioSpec(44100, 2048, 512, 128, 0.0, 22050.0), 40, log10=False),
    )
}


def of(audio: specs.AudioSpec) -> Rates:
    """Returns the rates whose mels are `audio`.

    Raises:
      ValueError: there are none.
    """
    for rates in RATES.values():
        if rates.audio == audio:
            return rates
    known = "; ".join(f"{name}: {rates.audio}" for name, rates in RATES.items())
    raise ValueError(f"audio is {audio}, expected that of one of MMAudio's rates: {known}")
