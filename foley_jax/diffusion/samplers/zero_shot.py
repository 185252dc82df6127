"""Zero-shot conditions: part of a pytree is known, the rest is sampled by a joint model.

MM-Diffusion's audio for a silent video and video for an audio clip, without training for it. B
batch.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp

from foley_jax.diffusion import gaussian
from foley_jax.diffusion import schedule as schedule_lib
from foley_jax.diffusion.samplers import ddpm
from foley_jax.diffusion.schedule import Schedule

Known = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Guidance:
    """How strongly the sampled part is moved so that the model predicts the known part.

    target <- target' - strength * weight(t) * grad_target sum (predicted known - known)^2,
    the sum over one item's elements, so the strength does not depend on the batch.

    Attributes:
      strength: of the gradient of the squared-error sum; 0 is replacement alone. The official
        scripts' numbers become this unit by `official_strength`.
      weight: "signal" = alpha(t), strong at the end (the official code), or "noise" = sigma(t),
        strong at the beginning (the paper's formula).
      noise: "fixed": the known part is noised with one draw at every step (the official code);
        "fresh": with a new one at every step (the forward process).
    Raises:
      ValueError: an unknown weight or noise, or a strength that is negative or not finite.
    Source: MM-Diffusion section 3.4; multimodal_gaussian_diffusion.py `conditional_p_sample_loop`.
    """

    strength: float = 0.0
    weight: Literal["signal", "noise"] = "noise"
    noise: Literal["fixed", "fresh"] = "fresh"

    def __post_init__(self):
        if self.weight not in ("signal", "noise"):
            raise ValueError(f"weight is {self.weight!r}, expected 'signal' or 'noise'")
        if self.noise not in ("fixed", "fresh"):
            raise ValueError(f"noise is {self.noise!r}, expected 'fixed' or 'fresh'")
        if not 0 <= self.strength < math.inf:
            raise ValueError(f"strength is {self.strength}, expected a finite number, 0 or more")

    @classmethod
    def official(cls, scale: float, *, batch: int, elements: int, fp16: bool) -> "Guidance":
        """The official loop with `--classifier_scale=scale`; see `official_strength`."""
        strength = official_strength(scale, batch=batch, elements=elements, fp16=fp16)
        return cls(strength=strength, weight="signal", noise="fixed")


def official_strength(scale: float, *, batch: int, elements: int, fp16: bool) -> float:
    """Strength of the official `--classifier_scale`.

    The official loss is the mean over the batch and the known part's elements, and with
    `--use_fp16 True` (all its scripts) its loss scale 2^20 is never divided out again: scale 3 for
    a 16x64x64 video and a batch of 2 is strength 8; without fp16 it is 7.6e-6, practically off.

    Args:
      batch: items sampled together.
      elements: numbers in one item's known part (196,608 for the video, 25,600 for the audio).
    """
    return scale * (2.0**20 if fp16 else 1.0) / (batch * elements)


def step(
    denoise_fn: gaussian.DenoiseFn,
    schedule: Schedule,
    x: dict[str, jax.Array],
    known: Known,
    index: jax.Array,
    *,
    known_noise: Known,
    known_noise_next: Known,
    noise: Mapping[str, jax.Array],
    guidance: Guidance = Guidance(),
) -> dict[str, jax.Array]:
    """One ancestral step at table index `index` with part of `x` replaced by the known data.

    Args:
      denoise_fn: (x, float32 model times [B]) -> eps, structure of x.
      x: every part, float32 [B, ...]; what `known` names is overwritten.
      known: clean data of some parts.
      known_noise: noise that takes the known data to this step.
      known_noise_next: noise of the guidance's reference, the known data at the next (cleaner)
        step; the same as `known_noise` when it is fixed.
      noise: draws of the ancestral step, all parts.
    Returns:
      All parts at the next step; those of `known` hold the model's own prediction of them.
    """
    batch = next(iter(x.values())).shape[0]
    index_B = jnp.full((batch,), index)
    x = {**x, **gaussian.q_sample(schedule, dict(known), index_B, dict(known_noise))}
    time_B = jnp.full((batch,), jnp.asarray(schedule.model_times)[index])

    def advance(free: dict[str, jax.Array]) -> dict[str, jax.Array]:
        whole = {**x, **free}
        eps = denoise_fn(whole, time_B)
        return ddpm.step(
            schedule, whole, eps, index, dict(noise), variance="fixed_large", clip_x0=True
        )

    free = {name: part for name, part in x.items() if name not in known}
    if not guidance.strength:
        return advance(free)
    reference = gaussian.q_sample(
        schedule, dict(known), jnp.maximum(index_B - 1, 0), dict(known_noise_next)
    )

    def error(free: dict[str, jax.Array]):
        moved = advance(free)
        return sum(jnp.sum(jnp.square(moved[k] - reference[k])) for k in known), moved

    (_, moved), gradient = jax.value_and_grad(error, has_aux=True)(free)
    table = {
        "signal": schedule.sqrt_alphas_cumprod,
        "noise": schedule.sqrt_one_minus_alphas_cumprod,
    }[guidance.weight]
    # the last step is not guided
    size = jnp.where(index == 0, 0.0, guidance.strength * jnp.asarray(table)[index])
    return {**moved, **{k: moved[k] - size * gradient[k] for k in free}}


def sample(
    denoise_fn: gaussian.DenoiseFn,
    schedule: Schedule,
    x_T: dict[str, jax.Array],
    known: Known,
    *,
    key: jax.Array,
    num_steps: int | None = None,
    guidance: Guidance = Guidance(),
) -> dict[str, jax.Array]:
    """Samples the unknown parts by ancestral draws, one scan.

    Args:
      denoise_fn: (x, float32 model times [B]) -> eps, structure of x.
      x_T: standard normal [B, ...] of every part; the known ones' serve as their fixed noise.
      known: clean data in [-1, 1] of some parts.
      key: of all draws.
      num_steps: static; the schedule is respaced evenly to so many steps. Default: all.
      guidance: strength 0 is replacement, the rest gradient guidance.
    Returns:
      All parts, float32; the known ones as given, not as the model would have them.
    Raises:
      ValueError: `known` names nothing, everything, or a part that x_T lacks, or has another
        shape.
    Source: MM-Diffusion multimodal_gaussian_diffusion.py:584-819.
    """
    _check(x_T, known)
    if num_steps is not None and num_steps != schedule.num_steps:
        steps = ddpm.even_steps(schedule, num_steps)
        schedule = schedule_lib.respace(schedule, steps)
    count = schedule.num_steps
    x_T = jax.tree.map(lambda a: a.astype(jnp.float32), x_T)
    known = {k: jnp.asarray(a, jnp.float32) for k, a in known.items()}
    fixed = {k: x_T[k] for k in known}

    def body(x, now):
        index, step_key = now
        draw_key, here_key, next_key = jax.random.split(step_key, 3)
        here, later = fixed, fixed
        if guidance.noise == "fresh":
            here = gaussian.noise_like(fixed, key=here_key)
            later = gaussian.noise_like(fixed, key=next_key)
        x = step(
            denoise_fn,
            schedule,
            x,
            known,
            index,
            known_noise=here,
            known_noise_next=later,
            noise=gaussian.noise_like(x, key=draw_key),
            guidance=guidance,
        )
        return x, None

    x_0, _ = jax.lax.scan(body, x_T, (jnp.arange(count)[::-1], jax.random.split(key, count)))
    return {**x_0, **known}


def _check(x_T: Known, known: Known) -> None:
    strange = sorted(set(known) - set(x_T))
    if strange or not known or len(known) == len(x_T):
        raise ValueError(f"known names {sorted(known)}; expected some but not all of {sorted(x_T)}")
    for name, part in known.items():
        if part.shape != x_T[name].shape:
            raise ValueError(
                f"known {name!r} has shape {part.shape}, its noise {x_T[name].shape}; they must "
                "agree"
            )
