"""DPM-Solver++ with steps as long as the error allows (order 2, data prediction).

MM-Diffusion's other sampler. One while loop: the number of evaluations depends on the data, and
the items of a batch share their steps. B batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from foley_jax.diffusion import gaussian, thresholding
from foley_jax.diffusion.schedule import Schedule


class Tolerances(NamedTuple):
    """Settings that decide the length of a step.

    Attributes:
      absolute, relative: allowed error per element, 2/256 and 5 % by default.
      first: first step, in lambda = log(alpha / sigma).
      safety: share of the ideal step that is taken.
      end: distance from the end, in time as a share of the schedule, at which to stop.
    """

    absolute: float = 0.0078
    relative: float = 0.05
    first: float = 0.05
    safety: float = 0.9
    end: float = 1e-5


SCRIPT = Tolerances()  # of MM-Diffusion's sampling script


class _State(NamedTuple):
    x: gaussian.Tree
    previous: gaussian.Tree  # first-order result of the last accepted step
    time: jax.Array  # model time, float32 scalar
    h: jax.Array  # next step in lambda
    evaluations: jax.Array  # int32


def time_of(schedule: Schedule, log_snr: jax.Array) -> jax.Array:
    """Model time at which lambda = log(alpha / sigma) has this value, linear between steps."""
    log_alpha = -0.5 * jnp.logaddexp(0.0, -2.0 * log_snr)
    table = jnp.asarray(schedule.log_alpha)
    steps = jnp.arange(schedule.num_steps, dtype=jnp.float32)
    return jnp.interp(log_alpha, table[::-1], steps[::-1])


def sample(
    denoise_fn: gaussian.DenoiseFn,
    schedule: Schedule,
    x_T: gaussian.Tree,
    *,
    tolerances: Tolerances = SCRIPT,
    threshold: bool = True,
    integer_times: bool = True,
    max_evaluations: int = 1000,
) -> tuple[gaussian.Tree, jax.Array]:
    """Solves the diffusion ODE from noise to data with error control.

    Each step takes a first- and a second-order result; where their difference, relative to
    max(absolute, relative * |x|), has a root mean square above 1 in any item or modality, the
    step is tried again, shorter.

    Args:
      denoise_fn: (x, float32 model times [B]) -> eps, structure of x.
      x_T: standard normal pytree of float32 [B, ...].
      threshold: `thresholding.dynamic` on every data prediction.
      integer_times: the network is told its times cut to integers.
      max_evaluations: gives up there; the result is then not clean.
    Returns:
      The sample, float32, and the int32 number of evaluations.
    Source: MM-Diffusion multimodal_dpm_solver_plus.py `dpm_solver_adaptive`; Lu et al. 2022.
    """
    x_T = jax.tree.map(lambda a: a.astype(jnp.float32), x_T)
    batch = jax.tree.leaves(x_T)[0].shape[0]
    last = float(schedule.num_steps - 1)
    lambda_end = schedule.lambda_at(jnp.float32(0.0))

    def data(x: gaussian.Tree, time: jax.Array) -> gaussian.Tree:
        told = jnp.floor(time + 1e-3) if integer_times else time  # float32 rounds 499.0 down
        eps = denoise_fn(x, jnp.full((batch,), told))
        alpha, sigma = schedule.alpha_sigma_at(time)
        x0 = jax.tree.map(lambda a, e: (a - sigma * e.astype(a.dtype)) / alpha, x, eps)
        return thresholding.dynamic(x0) if threshold else x0

    def body(state: _State) -> _State:
        here = schedule.lambda_at(state.time)
        middle = time_of(schedule, here + 0.5 * state.h)
        end = time_of(schedule, here + state.h)
        first = data(state.x, state.time)
        half = _move(schedule, state.x, first, state.time, middle, 0.5 * state.h)
        second = data(half, middle)
        low = _move(schedule, state.x, first, state.time, end, state.h)
        # 1 / (2 r1) = 1: extrapolated from the middle to the whole step
        slope = jax.tree.map(jnp.subtract, second, first)
        alpha, _ = schedule.alpha_sigma_at(end)
        push = -alpha * jnp.expm1(-state.h)
        high = jax.tree.map(lambda a, d: a + push * d, low, slope)
        error = _error(low, high, state.previous, tolerances)
        good = error <= 1.0

        def choose(a, b):
            return jax.tree.map(lambda p, q: jnp.where(good, p, q), a, b)

        time = jnp.where(good, end, state.time)
        left = lambda_end - schedule.lambda_at(time)
        h = jnp.minimum(tolerances.safety * state.h * error**-0.5, left)
        x, previous = choose(high, state.x), choose(low, state.previous)
        return _State(x, previous, time, h, state.evaluations + 2)

    def unfinished(state: _State) -> jax.Array:
        far = state.time > tolerances.end * schedule.num_steps
        return far & (state.evaluations < max_evaluations)

    start = _State(x_T, x_T, jnp.float32(last), jnp.float32(tolerances.first), jnp.int32(0))
    done = jax.lax.while_loop(unfinished, body, start)
    return done.x, done.evaluations


def _move(schedule, x, x0, start, end, h) -> gaussian.Tree:
    """First-order step of length h in lambda: sigma_t / sigma_s x - alpha_t (e^-h - 1) x0."""
    _, sigma_s = schedule.alpha_sigma_at(start)
    alpha_t, sigma_t = schedule.alpha_sigma_at(end)
    push = -alpha_t * jnp.expm1(-h)
    return jax.tree.map(lambda a, m: sigma_t / sigma_s * a + push * m, x, x0)


def _error(low, high, previous, tolerances: Tolerances) -> jax.Array:
    """Largest root mean square of the scaled difference over items and leaves, scalar."""

    def leaf(a, b, p):
        size = jnp.maximum(jnp.abs(a), jnp.abs(p))
        allowed = jnp.maximum(tolerances.absolute, tolerances.relative * size)
        square = jnp.square((b - a) / allowed)
        return jnp.sqrt(square.reshape(square.shape[0], -1).mean(axis=1)).max()

    return jnp.max(jnp.stack(jax.tree.leaves(jax.tree.map(leaf, low, high, previous))))
