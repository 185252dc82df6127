"""Settings that a user chooses for sampling with MM-Diffusion."""

import dataclasses

from foley_jax.runtime import limits

UPSCALING_STEPS = 25  # the official scripts' ddim25
# network evaluations where the caller names none; None: all steps of the schedule
STEPS = {"dpm_solver": 20, "dpm_solver++": 20, "adaptive": None, "ddim": 25, "ddpm": None}
METHODS = ("gradient", "replacement")
CONDITIONAL_STEPS = {"default": 250, "official": 1000}
# of the gradient: strength per squared-error sum, or the official --classifier_scale
SCALES = {"default": 0.3, "official": 3.0}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that a generated clip depends on besides the model and its input.

    Attributes:
      seed: of all draws, 0 to 2**64 - 1.
      steps: network evaluations; None is the sampler's own: see `STEPS`, `CONDITIONAL_STEPS`.
      sampler: for clips from noise. "dpm_solver": singlestep, order 3, told integer times (the
        paper's); "dpm_solver++": multistep, order 2, dynamic thresholding; "adaptive": order 2
        with error control and thresholding, where `steps` has no meaning (the official
        dpm_solver++); "ddim" and "ddpm": on a respaced schedule, data predictions clipped.
      method: for a given part: "gradient" guidance, or "replacement" alone.
      scale: strength of the gradient. With preset "default" it multiplies the gradient of the
        squared-error sum of one clip (`zero_shot.Guidance`); with "official" it is the
        scripts' --classifier_scale for a batch of one with --use_fp16, which is
        `zero_shot.official_strength` in the former unit. None: 0.3 and 3.
      preset: "official" noises the given part with one draw at every step and weighs the
        gradient by alpha(t); "default" follows the paper: a fresh draw, weight sigma(t).
      super_resolve: enlarge the images, where the model has a super-resolution network.
      sr_steps: its evaluations for every frame.
    Raises:
      ValueError: a value is of another kind, not finite, or out of range.
    """

    seed: int = 0
    steps: int | None = None
    sampler: str = "dpm_solver"
    method: str = "gradient"
    scale: float | None = None
    preset: str = "default"
    super_resolve: bool = True
    sr_steps: int = UPSCALING_STEPS

    def __post_init__(self):
        for name, known in (("sampler", STEPS), ("method", METHODS), ("preset", SCALES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}"
                )
        checked = {
            "seed": limits.seed(self.seed),
            "sr_steps": limits.whole("sr_steps", self.sr_steps, 1),
        }
        if self.steps is not None:
            checked["steps"] = limits.whole("steps", self.steps, 2)
        if self.scale is not None:
            checked["scale"] = limits.real("scale", self.scale, 0)
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # a frozen dataclass has no other way
