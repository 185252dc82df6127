"""DPM-Solver++(2M): the few-step sampler of Diff-Foley (data prediction, multistep, order 2).

B batch, N solver steps.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diffusion import gaussian, thresholding
from foley_jax.diffusion import log_snr as log_snr_lib
from foley_jax.diffusion import stateful as memory_lib
from foley_jax.diffusion.schedule import Schedule

Spacing = Literal["time", "log_snr"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Step:
    """Numbers of a step from time s to the next time t, each float32 [N] (scalar in the scan)."""

    time: jax.Array  # what the network is told: s, perhaps cut to an integer
    alpha: jax.Array  # at s
    sigma: jax.Array  # at s
    keep: jax.Array  # sigma_t / sigma_s
    push: jax.Array  # -alpha_t * (exp(-h) - 1), h = lambda_t - lambda_s
    slope: jax.Array  # 1 / (2 r0); 0 makes the step first order


def model_times(schedule: Schedule, num_steps: int, spacing: Spacing = "time") -> jax.Array:
    """N + 1 model times from the last step to the first; the last one is not evaluated.

    They are evenly spaced, or their lambda = log(alpha / sigma) is.

    Raises:
      ValueError: unknown spacing.
    """
    last = float(schedule.num_steps - 1)
    if spacing == "time":
        return jnp.linspace(last, 0.0, num_steps + 1, dtype=jnp.float32)
    if spacing != "log_snr":
        raise ValueError(f"spacing is {spacing!r}, expected 'time' or 'log_snr'")
    log_snr = log_snr_lib.LogSnr(schedule)
    ends = log_snr(np.array([last, 0.0]))
    return jnp.asarray(log_snr.inverse(np.linspace(*ends, num_steps + 1)), jnp.float32)


def starts_at(schedule: Schedule, num_steps: int, skip: int) -> jax.Array:
    """Returns the model time at which `sample` is after `skip` of its steps, float32."""
    return model_times(schedule, num_steps)[skip]


def _steps(
    schedule: Schedule, times: jax.Array, lower_order_final: bool, integer_times: bool
) -> _Step:
    alpha, sigma = schedule.alpha_sigma_at(times)
    h = jnp.diff(schedule.lambda_at(times))
    # r0 = h_previous / h, and the first step has no predecessor
    slope = jnp.concatenate([jnp.zeros(1), 0.5 * h[1:] / h[:-1]])
    if lower_order_final and len(h) < 15:
        slope = slope.at[-1].set(0.0)
    return _Step(
        # float32 may leave an integer a rounding error below itself
        time=jnp.floor(times[:-1] + 1e-3) if integer_times else times[:-1],
        alpha=alpha[:-1],
        sigma=sigma[:-1],
        keep=sigma[1:] / sigma[:-1],
        push=-alpha[1:] * jnp.expm1(-h),
        slope=slope,
    )


def sample(
    denoise_fn: gaussian.DenoiseFn | memory_lib.Denoiser,
    schedule: Schedule,
    x_T: gaussian.Tree,
    *,
    num_steps: int = 25,
    lower_order_final: bool = True,
    spacing: Spacing = "time",
    integer_times: bool = False,
    threshold: bool = False,
    skip: int = 0,
) -> gaussian.Tree:
    """Solves the diffusion ODE from noise to data in one scan, `num_steps` evaluations.

    x_t = (sigma_t / sigma_s) x_s - alpha_t (e^-h - 1) D,  D = m0 + (m0 - m1) / (2 r0), with m0,
    m1 the data predictions at this and the previous time.

    Args:
      denoise_fn: (x, float32 model times [B]) -> eps, structure of x. Times are fractional
        (999, 959.04, ... for 25 steps of 1000) unless `integer_times`.
      x_T: standard normal pytree of float32 [B, ...].
      num_steps: static, at least 1.
      lower_order_final: first-order last step when there are fewer than 15 steps.
      spacing: of the steps, static; see `model_times`.
      integer_times: the network is told its times cut to integers, as MM-Diffusion was trained.
      threshold: `thresholding.dynamic` on every data prediction.
      skip: steps that are left out at the beginning; x_T is then what is there after them, at the
        time of `starts_at`.
    Returns:
      The sample at model time 0, float32; no final denoising step, as in the source.
    Raises:
      ValueError: num_steps < 1, or unknown spacing.
    Source: dpm_solver.py `sample(method='multistep', order=2, skip_type='time_uniform')` as
      called by sampler.py; MM-Diffusion multimodal_dpm_solver_plus.py likewise; Lu et al. 2022
      (DPM-Solver++), algorithm 2.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}, expected at least 1")
    x_T = jax.tree.map(lambda a: a.astype(jnp.float32), x_T)
    batch = jax.tree.leaves(x_T)[0].shape[0]
    denoise, memory = memory_lib.of(denoise_fn)

    def step(carry, s: _Step):
        x, previous, memory = carry
        eps, memory = denoise(x, jnp.full((batch,), s.time), memory)
        data = jax.tree.map(lambda a, e: (a - s.sigma * e.astype(a.dtype)) / s.alpha, x, eps)
        data = thresholding.dynamic(data) if threshold else data

        def leaf(a, m0, m1):
            return s.keep * a + s.push * (m0 + s.slope * (m0 - m1))

        return (jax.tree.map(leaf, x, data, previous), data, memory), None

    start = (x_T, jax.tree.map(jnp.zeros_like, x_T), memory)
    times = model_times(schedule, num_steps, spacing)[skip:]
    numbers = _steps(schedule, times, lower_order_final, integer_times)
    (x_0, _, _), _ = jax.lax.scan(step, start, numbers)
    return x_0
