"""Progressive distillation: a student whose one step goes where several of its teacher's do.

A student of N steps walks the trailing grid of N levels by DDIM and is trained on these levels
alone. Its teacher walks K finer steps from a level to the next; the student is asked for the data
prediction whose single step lands at the same point. Chosen over consistency models because nothing
moves but the student: no average of it as target, no order of discretisations, and the loss is the
distance of the very jumps that sampling makes. Guidance acts in the teacher and is learned.
B batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diffusion import gaussian
from foley_jax.diffusion.schedule import Schedule


class Levels(NamedTuple):
    """Noise levels of a walk of n steps, the noisiest first.

    Attributes:
      times: float32 [n], what the network is told.
      alphas, sigmas: float32 [n + 1], the last of clean data: 1 and 0.
    """

    times: jax.Array
    alphas: jax.Array
    sigmas: jax.Array


def levels(schedule: Schedule, num_steps: int) -> Levels:
    """The trailing grid: `num_steps` table indices, evenly from the last one down.

    The grid of N * K steps holds that of N.
    Raises:
      ValueError: fewer than one step, or more than the table has.
    Source: Lin et al. 2024, table 2 ("trailing").
    """
    if not 1 <= num_steps <= schedule.num_steps:
        raise ValueError(f"num_steps is {num_steps}, expected 1 to {schedule.num_steps}")
    share = np.arange(num_steps, 0, -1) / num_steps
    index = np.round(share * schedule.num_steps).astype(np.int64) - 1
    table = lambda values, last: jnp.append(jnp.asarray(values)[index], last)  # noqa: E731
    return Levels(
        jnp.asarray(schedule.model_times)[index],
        table(schedule.sqrt_alphas_cumprod, 1.0),
        table(schedule.sqrt_one_minus_alphas_cumprod, 0.0),
    )


def draw_levels(b: int, key: jax.Array, num_steps: int, *, train: bool) -> jax.Array:
    """Levels of one training loss, int32 [b]; evaluation spreads them evenly over the batch."""
    if train:
        return jax.random.randint(key, (b,), 0, num_steps)
    return jnp.arange(b, dtype=jnp.int32) % num_steps


def move(x: gaussian.Tree, x0: gaussian.Tree, walk: Levels, at_B: jax.Array) -> gaussian.Tree:
    """One DDIM step from level `at_B` of a walk to the next, towards predicted clean data.

    x' = alpha' x0 + sigma' (x - alpha x0) / sigma.
    Source: Song et al. 2020, eq. 12 at eta 0.
    """
    kept_B, added_B = _factors(walk, at_B)
    return gaussian.combine(kept_B, x, added_B, x0)


def landing_x0(
    x: gaussian.Tree, reached: gaussian.Tree, walk: Levels, at_B: jax.Array
) -> gaussian.Tree:
    """The clean data whose one step of `walk` from `x` at level `at_B` lands at `reached`.

    Source: Salimans and Ho 2022, appendix G.
    """
    kept_B, added_B = _factors(walk, at_B)
    return gaussian.combine(1.0 / added_B, reached, -kept_B / added_B, x)


def _factors(walk: Levels, at_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Factors of x and of x0 in the step from a level to the next."""
    alpha_B, sigma_B = walk.alphas[at_B], walk.sigmas[at_B]
    kept_B = walk.sigmas[at_B + 1] / sigma_B
    return kept_B, walk.alphas[at_B + 1] - kept_B * alpha_B


def training_loss(
    schedule: Schedule,
    student_fn: gaussian.DenoiseFn,
    teacher_fn: gaussian.DenoiseFn,
    x0: gaussian.Tree,
    noise: gaussian.Tree,
    level_B: jax.Array,
    *,
    num_steps: int,
    substeps: int,
    prediction: str,
) -> jax.Array:
    """Mean squared error of the student's prediction against where its teacher goes, per example.

    Args:
      student_fn, teacher_fn: (x_t, float32 model times [B]) -> prediction, structure of x0; the
        teacher's with its guidance. It gets no gradient.
      x0, noise: clean data and standard normal, pytrees of [B, ...].
      level_B: int32 [B] levels of the student's grid, 0 (pure noise) to num_steps - 1.
      num_steps, substeps: N of the student; K of the teacher for each of them.
      prediction: "eps", "v" or "x0", of both networks.
    Returns:
      float32 [B], leaves of a pytree added.
    Source: Salimans and Ho 2022, algorithm 2, with K substeps for its two.
    """
    walk, fine = levels(schedule, num_steps), levels(schedule, num_steps * substeps)
    alpha_B, sigma_B = walk.alphas[level_B], walk.sigmas[level_B]
    x_t = gaussian.combine(alpha_B, x0, sigma_B, noise)

    def follow(x: gaussian.Tree, ahead: jax.Array) -> tuple[gaussian.Tree, None]:
        at_B = level_B * substeps + ahead
        predicted = teacher_fn(x, fine.times[at_B])
        clean = gaussian.to_x0(schedule, x, fine.times[at_B], predicted, prediction)
        return move(x, clean, fine, at_B), None

    reached, _ = jax.lax.scan(follow, x_t, jnp.arange(substeps, dtype=jnp.int32))
    clean = landing_x0(x_t, jax.lax.stop_gradient(reached), walk, level_B)
    eps = gaussian.combine(1.0 / sigma_B, x_t, -alpha_B / sigma_B, clean)
    v = gaussian.combine(alpha_B, eps, -sigma_B, clean)
    wanted = {"x0": clean, "eps": eps, "v": v}[prediction]
    return gaussian.squared_error(student_fn(x_t, walk.times[level_B]), wanted)
