"""Settings that a user chooses for sampling with Diff-Foley."""

import dataclasses
from typing import Any

from foley_jax.runtime import limits

VARYING = ("dpm_solver", "ddim")  # samplers that can begin in the middle
SAMPLERS = ("dpm_solver", "ddim", "plms")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that a generated audio clip depends on besides the video and the model.

    Attributes:
      seed: 0 to 2**64 - 1; with the video's name and the sample's number it decides the noise.
      steps: solver steps, at least 2; of a distilled student those that it was made for.
      guidance: classifier-free guidance scale; 1 is none. Students have theirs folded in and read
        neither this nor `alignment`.
      alignment: scale of the alignment classifier's gradient; 0, or a model without a
        classifier, is none.
      num_samples: audio clips made per video.
      keep_best: how many of them are wanted, best scores first.
      sampler: "dpm_solver" (DPM-Solver++(2M), the paper's), "ddim" or "plms".
      cache_interval: solver steps that one computation of the U-Net's deep entries serves: 2 or
        3 save time and change the audio a little, 1 is exact; see `feature_cache`.
      cache_depth: entries of the way down, and up, that are computed at every step.
      vary: 1 makes all anew; below it begins with audio that is there, noised to this share of the
        steps (SDEdit), of which at least one is done: the less, the nearer the result is to it.
      preset: "default", or "official" to reproduce the published notebook with its mistakes:
        zeros as null condition, which training never saw (spec D1); the raw features of the whole
        video for the classifier (D2) and none of it at guidance 1 with DPM-Solver; a 22.05 kHz
        mel basis, which lowers every pitch by 27 % (D3); windows side by side at 8.176 s for
        8 s of image (D4); features in groups of 40 frames (D6).
    Raises:
      ValueError: a value is of another kind, not finite, or out of range.
    """

    seed: int = 0
    steps: int = 25
    guidance: float = 4.5
    alignment: float = 50.0
    num_samples: int = 1
    keep_best: int = 1
    sampler: str = "dpm_solver"
    cache_interval: int = 1
    cache_depth: int = 1
    preset: str = "default"
    vary: float = 1.0

    def __post_init__(self):
        if self.preset not in ("default", "official"):
            raise ValueError(f"preset is {self.preset!r}, expected 'default' or 'official'")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler is {self.sampler!r}, expected one of {', '.join(SAMPLERS)}")
        checked = {
            "seed": limits.seed(self.seed),
            "steps": limits.whole("steps", self.steps, 1),
            "guidance": limits.real("guidance", self.guidance),
            "alignment": limits.real("alignment", self.alignment, 0),
            "num_samples": limits.whole("num_samples", self.num_samples, 1),
            "keep_best": limits.whole("keep_best", self.keep_best, 1),
            "cache_interval": limits.whole("cache_interval", self.cache_interval, 1),
            "cache_depth": limits.whole("cache_depth", self.cache_depth, 1),
            "vary": limits.share("vary", self.vary),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # a frozen dataclass has no other way
        if self.keep_best > self.num_samples:
            raise ValueError(
                f"keep_best is {self.keep_best}, expected 1 to num_samples={self.num_samples}"
            )

        if self.vary < 1 and self.sampler not in VARYING:
            raise ValueError(
                f"sampler {self.sampler!r} begins with noise alone; give vary=1, or one of the "
                f"samplers {', '.join(VARYING)}"
            )
        if self.vary < 1 and self.preset == "official":
            raise ValueError(
                "preset 'official' makes all anew, as the published notebook; give vary=1, or "
                "preset 'default'"
            )

    def record(self) -> dict[str, Any]:
        """Returns the settings for a file beside the results, without a `vary` that is 1."""
        found = dataclasses.asdict(self)
        if self.vary == 1:
            del found["vary"]
        return found

    def aligned(self, has_classifier: bool) -> bool:
        """Whether the classifier's gradient acts.

        Raises:
          ValueError: PLMS with a classifier.
        """
        if not has_classifier or not self.alignment:
            return False
        if self.sampler == "plms":
            raise ValueError(
                "sampler 'plms' has no classifier guidance (the official code samples without "
                "any guidance then); give alignment=0, or sampler 'dpm_solver' or 'ddim'"
            )
        quirk = self.preset == "official" and self.sampler == "dpm_solver" and self.guidance == 1
        return not quirk
