"""Ancestral (DDPM) sampling: one posterior draw per step.

B batch.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diffusion import gaussian
from foley_jax.diffusion import schedule as schedule_lib
from foley_jax.diffusion.schedule import Schedule

Variance = Literal["posterior", "fixed_large"]


def even_steps(schedule: Schedule, num_steps: int) -> np.ndarray:
    """`num_steps` table indices from the first to the last, rounded to the nearest.

    Source: guided_diffusion respace.py `space_timesteps` with one section.
    """
    if not 2 <= num_steps <= schedule.num_steps:
        raise ValueError(f"num_steps is {num_steps}, expected 2 to {schedule.num_steps}")
    return np.round(np.linspace(0, schedule.num_steps - 1, num_steps)).astype(int)


def step(
    schedule: Schedule,
    x: gaussian.Tree,
    eps: gaussian.Tree,
    index: jax.Array,
    noise: gaussian.Tree,
    *,
    variance: Variance = "posterior",
    clip_x0: bool = False,
) -> gaussian.Tree:
    """Draws x_{i-1} from the posterior at table index i; without noise at index 0.

    Args:
      x, eps, noise: pytrees of float32 [B, ...].
      index: int32 scalar.
      variance: "posterior", or "fixed_large" = beta (guided diffusion's FIXED_LARGE: its value
        at index 0 is the posterior variance of index 1, and is not used).
      clip_x0: clip the data prediction to [-1, 1].
    Source: Ho et al. 2020, eq. 7 and 11; guided_diffusion `p_sample`.
    """
    if variance not in ("posterior", "fixed_large"):
        raise ValueError(f"variance is {variance!r}, expected 'posterior' or 'fixed_large'")

    def at(table):
        return jnp.asarray(table)[index]

    table = schedule.betas if variance == "fixed_large" else schedule.posterior_variance
    spread = jnp.where(index == 0, 0.0, jnp.sqrt(at(table)))

    def leaf(a, e, n):
        x0 = at(schedule.sqrt_recip_alphas_cumprod) * a
        x0 = x0 - at(schedule.sqrt_recipm1_alphas_cumprod) * e.astype(jnp.float32)
        if clip_x0:
            x0 = jnp.clip(x0, -1.0, 1.0)
        mean = at(schedule.posterior_mean_coef1) * x0 + at(schedule.posterior_mean_coef2) * a
        return mean + spread * n

    return jax.tree.map(leaf, x, eps, noise)


def sample(
    denoise_fn: gaussian.DenoiseFn,
    schedule: Schedule,
    x_T: gaussian.Tree,
    *,
    key: jax.Array,
    num_steps: int | None = None,
    variance: Variance = "posterior",
    clip_x0: bool = False,
) -> gaussian.Tree:
    """Walks from noise to data by ancestral draws, one scan.

    Args:
      denoise_fn: (x, float32 model times [B]) -> eps, structure of x.
      x_T: standard normal pytree of float32 [B, ...].
      key: of all draws.
      num_steps: static; the schedule is respaced evenly to so many steps. Default: all of them.
      variance, clip_x0: see `step`.
    Returns:
      float32 pytree like x_T.
    Raises:
      ValueError: num_steps outside 2 to the table's length; unknown variance.
    Source: guided_diffusion `p_sample_loop`.
    """
    if num_steps is not None and num_steps != schedule.num_steps:
        schedule = schedule_lib.respace(schedule, even_steps(schedule, num_steps))
    count = schedule.num_steps
    x_T = jax.tree.map(lambda a: a.astype(jnp.float32), x_T)
    batch = jax.tree.leaves(x_T)[0].shape[0]
    times = jnp.asarray(schedule.model_times)

    def body(x, now):
        index, step_key = now
        eps = denoise_fn(x, jnp.full((batch,), times[index]))
        noise = gaussian.noise_like(x, key=step_key)
        x = step(schedule, x, eps, index, noise, variance=variance, clip_x0=clip_x0)
        return x, None

    x_0, _ = jax.lax.scan(body, x_T, (jnp.arange(count)[::-1], jax.random.split(key, count)))
    return x_0
