"""DPM-Solver, singlestep: each step of order 1, 2 or 3 stands alone (noise prediction).

MM-Diffusion's sampler: order 3, 20 evaluations, steps uniform in lambda = log(alpha / sigma).
B batch, N steps, K evaluations of a step.
"""

from collections.abc import Mapping
import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diffusion import gaussian
from foley_jax.diffusion import log_snr as log_snr_lib
from foley_jax.diffusion.schedule import Schedule

ORDERS = (1, 2, 3)
Preset = Literal["default", "official"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plan:
    """Numbers of N steps of one order, float32: K evaluation points and the step's end.

    Attributes:
      times_NK: what the network is told.
      ratio_NK: alpha(point) / alpha(start) of the points after the first and of the end.
      noise_NK: -sigma(point) * (e^(r h) - 1), the factor of the first eps, likewise.
      slope_NK: factor of (latest eps - first eps), likewise.
    """

    times_NK: np.ndarray
    ratio_NK: np.ndarray
    noise_NK: np.ndarray
    slope_NK: np.ndarray


def step_orders(num_evaluations: int, order: int) -> list[int]:
    """Orders of the steps that together take `num_evaluations`, lower ones last.

    Source: dpm_solver.py `get_orders_and_timesteps_for_singlestep_solver`.
    """
    if order not in ORDERS or num_evaluations < 1:
        raise ValueError(
            f"order is {order}, num_evaluations {num_evaluations}; expected an order of "
            f"{', '.join(map(str, ORDERS))} and at least 1 evaluation"
        )
    whole, rest = divmod(num_evaluations, order)
    if order == 3 and rest == 0:
        return [3] * (whole - 1) + [2, 1]
    return [order] * whole + ([rest] if rest else [])


def plan(
    schedule: Schedule,
    num_evaluations: int,
    order: int,
    *,
    integer_times: bool,
    swapped: bool = False,
) -> list[tuple[int, Plan]]:
    """(order, numbers) of every run of steps of one order, from noise to data.

    Args:
      integer_times: the network is told its times cut to integers (as it was trained); the
        numbers of the steps keep the exact ones.
      swapped: alpha and sigma change places, which is the official order-1 step of audio.
    """
    log_snr = log_snr_lib.LogSnr(schedule)
    orders = step_orders(num_evaluations, order)
    ends = log_snr(np.array([schedule.num_steps - 1.0, 0.0]))
    # a step is as long as the evaluations it takes
    share = np.concatenate([[0.0], np.cumsum(orders) / sum(orders)])
    knots = log_snr.inverse(ends[0] + share * (ends[1] - ends[0]))
    knots[0], knots[-1] = schedule.num_steps - 1, 0  # exactly, whatever interpolation rounds to
    runs: list[tuple[int, list[int]]] = []
    for i, k in enumerate(orders):
        if runs and runs[-1][0] == k:
            runs[-1][1].append(i)
        else:
            runs.append((k, [i]))
    return [(k, _run(log_snr, knots, steps, k, integer_times, swapped)) for k, steps in runs]


def _run(
    log_snr: log_snr_lib.LogSnr,
    knots: np.ndarray,
    steps: list[int],
    order: int,
    integer_times: bool,
    swapped: bool,
) -> Plan:
    start, end = knots[steps], knots[np.array(steps) + 1]
    h_N1 = (log_snr(end) - log_snr(start))[:, None]
    share_K = np.arange(1, order + 1) / order  # of the step: the later points and the end
    points_NK = log_snr.inverse(log_snr(start)[:, None] + share_K[:-1] * h_N1)
    points_NK = np.concatenate([start[:, None], points_NK, end[:, None]], axis=1)
    alpha, sigma = log_snr.alpha_sigma(points_NK)[:: -1 if swapped else 1]
    grown = np.expm1(share_K * h_N1)  # phi_1 of every point
    slope = np.zeros_like(grown)
    if order == 2:
        slope[:, 1] = -sigma[:, 2] * grown[:, 1]  # 1 / (2 r1) = 1
    if order == 3:
        h_2 = 2 / 3 * h_N1[:, 0]
        slope[:, 1] = -sigma[:, 2] * 2.0 * (grown[:, 1] / h_2 - 1.0)  # r2 / r1 = 2
        slope[:, 2] = -sigma[:, 3] * 1.5 * (grown[:, 2] / h_N1[:, 0] - 1.0)  # 1 / r2 = 1.5
    times = points_NK[:, :-1]
    # a time that interpolation put a rounding error below an integer is that integer
    times = np.floor(times + 1e-6) if integer_times else times
    arrays = (times, alpha[:, 1:] / alpha[:, :1], -sigma[:, 1:] * grown, slope)
    return Plan(*(a.astype(np.float32) for a in arrays))


def sample(
    denoise_fn: gaussian.DenoiseFn,
    schedule: Schedule,
    x_T: gaussian.Tree,
    *,
    num_steps: int = 20,
    order: int = 3,
    integer_times: bool = True,
    preset: Preset = "default",
) -> gaussian.Tree:
    """Solves the diffusion ODE from noise to data with `num_steps` evaluations.

    x(point) = alpha(point) / alpha(s) x(s) - sigma(point) (e^(r h) - 1) eps_s
    + slope (latest eps - eps_s), the points lying at thirds (halves) of the step in lambda.

    Args:
      denoise_fn: (x, float32 model times [B]) -> eps, structure of x.
      x_T: standard normal pytree of float32 [B, ...]; any batch (the official code needs two).
      num_steps: evaluations of the network, static: 20 are six steps of order 3 and one of 2.
      order: 1, 2 or 3, static.
      integer_times: see `plan`.
      preset: "official" moves x["audio"] in order-1 steps as the official code does, by the
        formula of another parametrisation (alpha and sigma have changed places), which leaves it
        with a tenth of its spread; "default" does it right. Without order-1 steps, as in 20
        evaluations of order 3, both are the same.
    Returns:
      The sample at model time 0, float32; not clipped, no final denoising step.
    Raises:
      ValueError: unknown order or preset, no evaluation, or "official" for an x without audio.
    Source: MM-Diffusion multimodal_dpm_solver_plus.py `sample(method='singlestep',
      skip_type='logSNR')`; Lu et al. 2022 (DPM-Solver), algorithms 1 and 2.
    """
    if preset not in get_args(Preset):
        raise ValueError(f"preset is {preset!r}, expected one of {', '.join(get_args(Preset))}")
    if preset == "official" and not (isinstance(x_T, Mapping) and "audio" in x_T):
        raise ValueError(
            'preset "official" is about x["audio"]; give {"video", "audio"} or use "default"'
        )
    x = jax.tree.map(lambda a: a.astype(jnp.float32), x_T)
    times = {"integer_times": integer_times}
    runs = plan(schedule, num_steps, order, **times)
    swapped = plan(schedule, num_steps, order, swapped=True, **times)
    for (k, numbers), (_, wrong) in zip(runs, swapped):
        wrong = wrong if preset == "official" and k == 1 else None

        def step(x, now, k=k):
            return _step(denoise_fn, x, k, *now), None

        x, _ = jax.lax.scan(step, x, jax.tree.map(jnp.asarray, (numbers, wrong)))
    return x


def _step(
    denoise_fn: gaussian.DenoiseFn, x: gaussian.Tree, order: int, now: Plan, audio_now: Plan | None
) -> gaussian.Tree:
    """One step of one order; `audio_now` are other numbers for x["audio"]."""
    batch = jax.tree.leaves(x)[0].shape[0]
    first = latest = denoise_fn(x, jnp.full((batch,), now.times_NK[0]))
    for i in range(order):
        point = _point(now, i, x, first, latest)
        if audio_now is not None:
            audio = _point(audio_now, i, x["audio"], first["audio"], latest["audio"])
            point = {**point, "audio": audio}
        if i + 1 < order:
            latest = denoise_fn(point, jnp.full((batch,), now.times_NK[i + 1]))
    return point


def _point(now: Plan, i: int, x, first, latest) -> gaussian.Tree:
    """x moved to evaluation point i + 1 of a step, or to its end."""

    def leaf(a, e0, e):
        return now.ratio_NK[i] * a + now.noise_NK[i] * e0 + now.slope_NK[i] * (e - e0)

    return jax.tree.map(leaf, x, first, latest)
