"""Settings that a user chooses for sampling with MMAudio."""

import dataclasses
from typing import Any, get_args

from foley_jax.diffusion import flow
from foley_jax.runtime import limits

SAMPLERS = get_args(flow.Method)
LEAST_S = 0.64  # one segment of Synchformer


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that a generated audio clip depends on besides the video and the model.

    Attributes:
      seed: 0 to 2**64 - 1; with the video's name and the sample's number it decides the noise.
      steps: solver steps; "heun" evaluates the network twice a step.
      guidance: classifier-free guidance scale; 1 is none, 0 ignores video and text.
      text: what is heard; "" says nothing.
      negative_text: what is not to be heard; "" is the null condition of training.
      duration: seconds of audio, from the beginning of the video; None is the whole video, and 8 s
        without one.
      num_samples: audio clips made per video.
      sampler: "euler" (the official one) or "heun".
      vary: 1 makes all anew; below it begins with audio that is there, noised to this share of the
        steps (SDEdit), of which at least one is done: the less, the nearer the result is to it.
      preset: "default", or "official" to reproduce the demo with its mistakes: only the first
        `duration` (8 s) of a video, frames that are late by up to one (spec B6, B13), other
        lengths than 8 s in one piece that the network never saw (B4), no guidance below 1 (B9),
        audio that is not cut to the video (B3).
    Raises:
      ValueError: a value is of another kind, not finite, or out of range.
    """

    seed: int = 0
    steps: int = 25
    guidance: float = 4.5
    text: str = ""
    negative_text: str = ""
    duration: float | None = None
    num_samples: int = 1
    sampler: str = "euler"
    preset: str = "default"
    vary: float = 1.0

    def __post_init__(self):
        if self.preset not in ("default", "official"):
            raise ValueError(f"preset is {self.preset!r}, expected 'default' or 'official'")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler is {self.sampler!r}, expected one of {', '.join(SAMPLERS)}")
        for name in ("text", "negative_text"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected a string")
        checked = {
            "seed": limits.seed(self.seed),
            "steps": limits.whole("steps", self.steps, 1),
            "guidance": limits.real("guidance", self.guidance, 0),
            "num_samples": limits.whole("num_samples", self.num_samples, 1),
            "vary": limits.share("vary", self.vary),
        }
        if self.duration is not None:
            checked["duration"] = limits.real("duration", self.duration, LEAST_S)
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # a frozen dataclass has no other way
        if self.vary < 1 and self.steps < 2:
            raise ValueError(f"vary={self.vary:g} needs at least 2 steps, steps is {self.steps}")
        if self.vary < 1 and self.preset == "official":
            raise ValueError(
                "preset 'official' makes all anew, as the published demo; give vary=1, or preset "
                "'default'"
            )

    def record(self) -> dict[str, Any]:
        """Returns the settings for a file beside the results, without a `vary` that is 1."""
        found = dataclasses.asdict(self)
        if self.vary == 1:
            del found["vary"]
        return found

    @property
    def scale(self) -> float:
        """The guidance scale that acts."""
        return 1.0 if self.preset == "official" and self.guidance < 1 else self.guidance
