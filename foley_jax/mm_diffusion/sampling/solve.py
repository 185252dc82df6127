"""Programs that sample clips: from noise, or with one of video and audio given.

B clips, F frames, H W C image, L audio samples, N shifted windows.
Every clip of a batch has its own key and walks alone, so that it does not depend on the others.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foley_jax.diffusion import finite, gaussian
from foley_jax.diffusion import schedule as schedule_lib
from foley_jax.diffusion.samplers import (
    ddim,
    ddpm,
    dpm_adaptive,
    dpm_multistep,
    dpm_singlestep,
    zero_shot,
)
from foley_jax.mm_diffusion.models import coupled_unet
from foley_jax.mm_diffusion.sampling import settings as settings_lib
from foley_jax.runtime import partition

Clip = dict[str, jax.Array]
NETWORK = "network"  # what `finite.Watch` watches, besides its input


def guidance(settings: settings_lib.Settings, elements: int) -> zero_shot.Guidance:
    """Returns how a given part of `elements` numbers guides."""
    official = settings.preset == "official"
    noise = "fixed" if official else "fresh"
    if settings.method == "replacement":
        return zero_shot.Guidance(noise=noise)
    scale = settings_lib.SCALES[settings.preset] if settings.scale is None else settings.scale
    if official:
        return zero_shot.Guidance.official(scale, batch=1, elements=elements, fp16=True)
    return zero_shot.Guidance(strength=scale, weight="noise", noise=noise)


class Denoiser(NamedTuple):
    """Description of the network, besides its weights.

    Attributes:
      schedule: of its training.
      prediction: "eps", "v" or "x0".
      shapes: clip of one, [1, ...], as `jax.ShapeDtypeStruct`.
    """

    schedule: schedule_lib.Schedule
    prediction: str
    shapes: Mapping[str, jax.ShapeDtypeStruct]


def eps(model: coupled_unet.CoupledUNet, about: Denoiser, shift_key: jax.Array):
    """The eps denoiser of samplers; every step has its own shifts, the same for all clips."""
    num_frames = about.shapes["video"].shape[1]

    def network(x: Clip, t_B: jax.Array) -> Clip:
        step_key = jax.random.fold_in(shift_key, t_B[0].astype(jnp.int32))
        shifts_N = model.draw_shifts(step_key, num_frames)
        video, audio = model(x["video"], x["audio"], t_B, shifts_N)
        return {"video": video, "audio": audio}

    return gaussian.as_eps(network, about.schedule, about.prediction)


def sample(
    model: coupled_unet.CoupledUNet,
    keys_B: jax.Array,
    shift_key: jax.Array,
    known: Mapping[str, jax.Array],
    *,
    about: Denoiser,
    settings: settings_lib.Settings,
    watch: finite.Watch | None = None,
) -> Clip:
    """Clips from noise, or the part that `known` lacks.

    Args:
      keys_B: a key for each clip.
      shift_key: of the windows' shifts.
      known: "video" [B, F, H, W, C] or "audio" [B, L, 1] in [-1, 1]; {} for neither.
      watch: told what is finite at every evaluation, see `finite.Watch`.
    Returns:
      {"video", "audio"} float32, not clipped; the known part as given.
    """
    denoise = eps(model, about, shift_key)
    if watch is not None:
        denoise = watch.around(NETWORK, denoise, of_input=True)

    def one(key: jax.Array, known: Clip) -> Clip:
        noise_key, draw_key = jax.random.split(key)
        x_T = gaussian.noise_like(dict(about.shapes), key=noise_key)
        if known:
            known = {name: part[None] for name, part in known.items()}
            made = _given(denoise, about, x_T, known, draw_key, settings)
        else:
            made = _free(denoise, about.schedule, x_T, draw_key, settings)
        return {name: part[0] for name, part in made.items()}

    return partition.shard_map_batch(jax.vmap(one))(keys_B, dict(known))


def _free(denoise, schedule, x_T: Clip, key: jax.Array, settings: settings_lib.Settings) -> Clip:
    steps = settings.steps or settings_lib.STEPS[settings.sampler]
    if settings.sampler == "dpm_solver":
        preset: Any = settings.preset
        return dpm_singlestep.sample(denoise, schedule, x_T, num_steps=steps, preset=preset)
    if settings.sampler == "dpm_solver++":
        return dpm_multistep.sample(
            denoise, schedule, x_T, num_steps=steps, spacing="log_snr", threshold=True
        )
    if settings.sampler == "adaptive":
        return dpm_adaptive.sample(denoise, schedule, x_T)[0]
    if settings.sampler == "ddim":
        return ddim.sample(denoise, schedule, x_T, num_steps=steps, offset=0, clip_x0=True)
    return ddpm.sample(
        denoise, schedule, x_T, key=key, num_steps=steps, variance="fixed_large", clip_x0=True
    )


def _given(
    denoise, about: Denoiser, x_T: Clip, known: Clip, key, settings: settings_lib.Settings
) -> Clip:
    (part,) = known.values()
    steps = settings.steps or settings_lib.CONDITIONAL_STEPS[settings.preset]
    return zero_shot.sample(
        denoise,
        about.schedule,
        x_T,
        known,
        key=key,
        num_steps=min(steps, about.schedule.num_steps),
        guidance=guidance(settings, part.size),
    )
