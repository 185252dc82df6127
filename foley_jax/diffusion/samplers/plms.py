"""PLMS: linear multistep over DDIM moves, as latent diffusion has it.

B batch, N solver steps.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diffusion import gaussian
from foley_jax.diffusion import stateful as memory_lib
from foley_jax.diffusion.samplers import ddim
from foley_jax.diffusion.schedule import Schedule

# weights of this evaluation and the three before it, by how many there are
ADAMS_BASHFORTH = (
    (1.0, 0.0, 0.0, 0.0),
    (3 / 2, -1 / 2, 0.0, 0.0),
    (23 / 12, -16 / 12, 5 / 12, 0.0),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
HEUN = (1 / 2, 1 / 2, 0.0, 0.0)


class _Evaluation(NamedTuple):
    """Steps that follow one evaluation of the denoiser; each field has one entry per evaluation."""

    time: jax.Array  # model time of the evaluation
    abar: jax.Array  # the move starts at this noise level
    abar_previous: jax.Array  # and ends at this one
    weights: jax.Array  # [4], of this prediction and the three before it
    trial: jax.Array  # the move is a trial: the next one starts from the same point
    keep: jax.Array  # the prediction enters the history


def _evaluations(schedule: Schedule, num_steps: int, offset: int) -> _Evaluation:
    """N + 1 evaluations: the first step is a trial move and its correction (Heun)."""
    steps = ddim.strided_steps(schedule, num_steps, offset)[::-1].copy()
    tables = np.asarray(schedule.alphas_cumprod, np.float32)
    last = tables[:1] if offset else np.ones(1, np.float32)
    moves = np.array([0, *range(num_steps)])  # the move that each evaluation serves
    seen = np.array([0, min(1, num_steps - 1), *range(1, num_steps)])  # where it looks
    abar = tables[steps]
    orders = [ADAMS_BASHFORTH[min(i, 3)] for i in range(num_steps)]
    weights = np.array([orders[0], HEUN, *orders[1:]], np.float32)
    index = np.arange(num_steps + 1)
    times = np.asarray(schedule.model_times, np.float32)[steps]
    arrays = (times[seen], abar[moves], np.append(abar[1:], last)[moves], weights)
    return _Evaluation(*map(jnp.asarray, (*arrays, index == 0, index != 1)))


def sample(
    denoise_fn: gaussian.DenoiseFn | memory_lib.Denoiser,
    schedule: Schedule,
    x_T: gaussian.Tree,
    *,
    num_steps: int,
    offset: int = 1,
) -> gaussian.Tree:
    """Walks from noise to data in `num_steps` + 1 evaluations, one scan.

    A deterministic DDIM move along a combination of this prediction and up to three before it
    (Adams-Bashforth of growing order); the first step tries its move and corrects it.

    Args:
      denoise_fn: (x, float32 model times [B]) -> eps, structure of x.
      x_T: standard normal pytree of float32 [B, ...].
      num_steps: static.
      offset: see `ddim.sample`.
    Returns:
      float32 pytree like x_T.
    Raises:
      ValueError: steps do not fit the schedule.
    Source: latent diffusion plms.py `PLMSSampler`; Liu et al. 2022, eq. 12 (PNDM).
    """
    x_T = jax.tree.map(lambda a: a.astype(jnp.float32), x_T)
    batch = jax.tree.leaves(x_T)[0].shape[0]
    denoise, memory = memory_lib.of(denoise_fn)

    def body(carry, now: _Evaluation):
        base, x, history, memory = carry
        eps, memory = denoise(x, jnp.full((batch,), now.time), memory)
        eps = jax.tree.map(lambda e: e.astype(jnp.float32), eps)
        recent = (eps, *history)
        mixed = jax.tree.map(
            lambda *leaves: sum(w * e for w, e in zip(now.weights, leaves)), *recent
        )
        moved = ddim.step(base, mixed, now.abar, now.abar_previous, None)
        base = jax.tree.map(lambda old, new: jnp.where(now.trial, old, new), base, moved)
        history = tuple(
            jax.tree.map(lambda old, new: jnp.where(now.keep, new, old), old, new)
            for old, new in zip(history, recent)
        )
        return (base, moved, history, memory), None

    zeros = jax.tree.map(jnp.zeros_like, x_T)
    start = (x_T, x_T, (zeros, zeros, zeros), memory)
    (_, x_0, _, _), _ = jax.lax.scan(body, start, _evaluations(schedule, num_steps, offset))
    return x_0
