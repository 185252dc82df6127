"""The walk of a distilled student: as many DDIM steps as it was trained for.

B batch.
"""

import jax
import jax.numpy as jnp

from foley_jax.diffusion import distillation, gaussian
from foley_jax.diffusion.schedule import Schedule


def sample(
    denoise_fn: gaussian.DenoiseFn, schedule: Schedule, x_T: gaussian.Tree, *, num_steps: int
) -> gaussian.Tree:
    """Walks from noise to data on the grid of `distillation.levels`, one scan.

    Args:
      denoise_fn: (x, float32 model times [B]) -> eps, structure of x; a student's, its guidance
        folded in.
      x_T: standard normal pytree of float32 [B, ...].
      num_steps: static, what the student was distilled to.
    Returns:
      float32 pytree like x_T; the last step ends clean.
    Raises:
      ValueError: fewer than one step, or more than the schedule has.
    """
    walk = distillation.levels(schedule, num_steps)
    batch = jax.tree.leaves(x_T)[0].shape[0]

    def body(x: gaussian.Tree, at: jax.Array) -> tuple[gaussian.Tree, None]:
        time_B, at_B = jnp.full((batch,), walk.times[at]), jnp.full((batch,), at)
        clean = gaussian.to_x0(schedule, x, time_B, denoise_fn(x, time_B), "eps")
        return distillation.move(x, clean, walk, at_B), None

    x_T = jax.tree.map(lambda a: a.astype(jnp.float32), x_T)
    x_0, _ = jax.lax.scan(body, x_T, jnp.arange(num_steps, dtype=jnp.int32))
    return x_0
