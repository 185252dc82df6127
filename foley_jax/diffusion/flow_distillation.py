"""Progressive distillation of a flow: a student whose one Euler step goes where several of its
teacher's do.

A student of N steps walks `flow.time_grid(N)` and is trained at these times alone, from points of
the straight path; its teacher walks K finer steps from a time to the next, and the student is asked
for the mean velocity of that walk. The grid of N * K steps holds that of N, so that a student can
teach the next. Guidance acts in the teacher and is learned. The counterpart of `distillation`.
B batch.
Source: Salimans and Ho 2022, algorithm 2, on the paths of Liu et al. 2022.
"""

import jax
import jax.numpy as jnp

from foley_jax.diffusion import flow, gaussian


def training_loss(
    student_fn: gaussian.DenoiseFn,
    teacher_fn: gaussian.DenoiseFn,
    data: gaussian.Tree,
    noise: gaussian.Tree,
    level_B: jax.Array,
    *,
    num_steps: int,
    substeps: int,
) -> jax.Array:
    """Mean squared error of the student's velocity against its teacher's mean one, per example.

    Args:
      student_fn, teacher_fn: (x_t, float32 times [B]) -> velocity, structure of `data`; the
        teacher's with its guidance. It gets no gradient.
      data, noise: clean data and standard normal, pytrees of [B, ...].
      level_B: int32 [B] steps of the student's grid, 0 (from pure noise) to num_steps - 1.
      num_steps, substeps: N of the student; K of the teacher for each of them.
    Returns:
      float32 [B], leaves of a pytree added.
    Raises:
      ValueError: num_steps or substeps below 1.
    """
    grid = jnp.asarray(flow.time_grid(num_steps))
    fine = jnp.asarray(flow.time_grid(num_steps * substeps))
    x_t = flow.on_path(noise, data, grid[level_B])

    def follow(x: gaussian.Tree, ahead: jax.Array) -> tuple[gaussian.Tree, None]:
        at_B = level_B * substeps + ahead
        length_B = fine[at_B + 1] - fine[at_B]
        ones_B = jnp.ones_like(length_B)
        return gaussian.combine(ones_B, x, length_B, teacher_fn(x, fine[at_B])), None

    reached, _ = jax.lax.scan(follow, x_t, jnp.arange(substeps, dtype=jnp.int32))
    rate_B = 1.0 / (grid[level_B + 1] - grid[level_B])
    wanted = gaussian.combine(rate_B, jax.lax.stop_gradient(reached), -rate_B, x_t)
    return gaussian.squared_error(student_fn(x_t, grid[level_B]), wanted)
