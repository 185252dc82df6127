"""Small clips -> large clips, frame by frame, with one noise image for each clip.

B batch of clips, T frames, H W C image, P frames computed at once, N batches of them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from foley_jax.diffusion import learned_variance
from foley_jax.diffusion import schedule as schedule_lib
from foley_jax.diffusion.samplers import ddim
from foley_jax.mm_diffusion.sampling import settings
from foley_jax.runtime import partition

FACTOR = 4  # 64 -> 256

# (noisy large images, small images, float32 model times [P]) -> [P, H, W, 2 C]
ImageNetwork = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def noise_for(low_BTHWC: jax.Array, key: jax.Array, *, factor: int = FACTOR) -> jax.Array:
    """One standard normal image for each clip, [B, factor * H, factor * W, C]."""
    b, _, h, w, c = low_BTHWC.shape
    return jax.random.normal(key, (b, factor * h, factor * w, c))


def upscale(
    model: ImageNetwork,
    low_BTHWC: jax.Array,
    key: jax.Array,
    *,
    factor: int = FACTOR,
    num_steps: int = settings.UPSCALING_STEPS,
    frames_at_once: int = 16,
    schedule: schedule_lib.Schedule | None = None,
    prediction: str = "eps",
) -> jax.Array:
    """Enlarges clips by deterministic DDIM with clipped data predictions.

    All frames of a clip start from the same noise, which keeps its grain still. The result does
    not depend on `frames_at_once`.

    Args:
      model: a `SuperResolution`, or a function of the same arguments.
      low_BTHWC: float, about [-1, 1], as the base model made them: neither rounded nor clipped.
      key: of the noise.
      factor: static; enlargement of both sides.
      num_steps: static; network evaluations per frame.
      frames_at_once: static; frames that go through the network together. Memory does not grow
        with the clips beyond them.
      schedule: of the model's training; by default `schedule.linear()`.
      prediction: static; "eps" (the paper), "v" or "x0", what the model was trained to give.
    Returns:
      float32 [B, T, factor * H, factor * W, C] in [-1, 1].
    Raises:
      ValueError: not clips, or num_steps or frames_at_once below 1.
    Source: multimodal_sample_sr.py with --sr_sample_fn ddim, --timestep_respacing ddim25.
    """
    if low_BTHWC.ndim != 5:
        raise ValueError(f"small clips are {low_BTHWC.shape}, expected [B, T, H, W, C]")
    if frames_at_once < 1:
        raise ValueError(f"frames_at_once is {frames_at_once}, expected 1 or more")
    schedule = schedule_lib.linear() if schedule is None else schedule
    noise_BHWC = noise_for(low_BTHWC, key, factor=factor)
    b, t = low_BTHWC.shape[:2]
    size = min(frames_at_once, b * t)
    count = -(-b * t // size)
    # frames in order, the last one again where the last batch has room
    frame_NP = jnp.minimum(jnp.arange(count * size), b * t - 1).reshape(count, size)
    low_FHWC = low_BTHWC.reshape(b * t, *low_BTHWC.shape[2:])

    def batch(frame_P: jax.Array) -> jax.Array:
        low_PHWC = partition.shard_batch(low_FHWC[frame_P])
        denoise = lambda x, time_P: model(x, low_PHWC, time_P)  # noqa: E731
        return ddim.sample(
            learned_variance.eps_only(denoise, schedule, prediction),
            schedule,
            partition.shard_batch(noise_BHWC[frame_P // t]),
            num_steps=num_steps,
            offset=0,
            clip_x0=True,
        )

    made = jax.lax.map(batch, frame_NP)  # [N, P, H, W, C]
    made = made.reshape(-1, *made.shape[2:])[: b * t]
    return made.reshape(b, t, *made.shape[1:])
