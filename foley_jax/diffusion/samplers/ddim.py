"""DDIM: the strided sampler, deterministic at eta 0.

B batch.
"""

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diffusion import gaussian
from foley_jax.diffusion import stateful as memory_lib
from foley_jax.diffusion.schedule import Schedule


def strided_steps(schedule: Schedule, num_steps: int, offset: int) -> np.ndarray:
    """Increasing table indices offset, offset + stride, ..., stride = table length // num_steps.

    Raises:
      ValueError: num_steps < 1, or the last index lies outside the table.
    """
    if num_steps < 1 or offset < 0:
        raise ValueError(f"num_steps {num_steps} and offset {offset}: expected >= 1 and >= 0")
    steps = np.arange(num_steps) * (schedule.num_steps // num_steps) + offset
    if steps[-1] >= schedule.num_steps or np.any(np.diff(steps) == 0):
        raise ValueError(
            f"{num_steps} steps from index {offset} do not fit a schedule of "
            f"{schedule.num_steps} steps; take fewer steps or offset=0"
        )
    return steps


def starts_at(schedule: Schedule, num_steps: int, skip: int, offset: int = 1) -> jax.Array:
    """Returns the model time at which `sample` is after `skip` of its steps, float32."""
    steps = strided_steps(schedule, num_steps, offset)[::-1]
    return jnp.asarray(schedule.model_times)[steps[skip]].astype(jnp.float32)


def step(
    x: gaussian.Tree,
    eps: gaussian.Tree,
    abar: jax.Array,
    abar_previous: jax.Array,
    noise: gaussian.Tree | None,
    *,
    eta: float = 0.0,
    clip_x0: bool = False,
) -> gaussian.Tree:
    """One move from noise level `abar` to the cleaner `abar_previous` (float32 scalars).

    x' = sqrt(abar') x0 + sqrt(1 - abar' - s^2) eps + s * noise,
    s = eta sqrt((1 - abar') / (1 - abar) (1 - abar / abar')).

    Args:
      x, eps: pytrees of [B, ...]; noise: the same, not read at eta 0.
      clip_x0: clip the data prediction to [-1, 1] and derive eps from it again.
    Source: Song et al. 2020, eq. 12; guided_diffusion `ddim_sample`.
    """
    spread = eta * jnp.sqrt((1 - abar_previous) / (1 - abar) * (1 - abar / abar_previous))
    towards = jnp.sqrt(jnp.maximum(1 - abar_previous - spread**2, 0.0))

    def leaf(a, e, n):
        e = e.astype(jnp.float32)
        x0 = (a - jnp.sqrt(1 - abar) * e) / jnp.sqrt(abar)
        if clip_x0:
            x0 = jnp.clip(x0, -1.0, 1.0)
            e = (a - jnp.sqrt(abar) * x0) / jnp.sqrt(1 - abar)
        moved = jnp.sqrt(abar_previous) * x0 + towards * e
        return moved if eta == 0 else moved + spread * n

    return jax.tree.map(leaf, x, eps, eps if noise is None else noise)


def sample(
    denoise_fn: gaussian.DenoiseFn | memory_lib.Denoiser,
    schedule: Schedule,
    x_T: gaussian.Tree,
    *,
    num_steps: int,
    eta: float = 0.0,
    key: jax.Array | None = None,
    offset: int = 1,
    clip_x0: bool = False,
    skip: int = 0,
) -> gaussian.Tree:
    """Walks from noise to data in `num_steps` evaluations, one scan.

    Args:
      denoise_fn: (x, float32 model times [B]) -> eps, structure of x.
      x_T: standard normal pytree of float32 [B, ...].
      num_steps: static.
      eta: static; 0 is deterministic, 1 has the noise of ancestral sampling.
      key: needed when eta > 0.
      offset: first table index visited. 1 is Stable Diffusion's walk 961, ..., 41, 1, which ends
        at the noise level of index 0; 0 is guided diffusion's 960, ..., 40, 0, which ends clean.
      clip_x0: clip data predictions to [-1, 1], for data that lives there.
      skip: steps that are left out at the beginning; x_T is then what is there after them, at the
        time of `starts_at`.
    Returns:
      float32 pytree like x_T.
    Raises:
      ValueError: steps do not fit the schedule, or eta > 0 without a key.
    Source: latent diffusion ddim.py `DDIMSampler`; guided_diffusion `ddim_sample_loop`.
    """
    if eta and key is None:
        raise ValueError(f"eta is {eta}, so ddim draws noise: give key=")
    steps = strided_steps(schedule, num_steps, offset)[::-1][skip:].copy()
    abar = jnp.asarray(schedule.alphas_cumprod)[steps]
    last = jnp.asarray(schedule.alphas_cumprod)[:1] if offset else jnp.ones(1)
    keys = jax.random.split(jax.random.key(0) if key is None else key, num_steps)[skip:]
    inputs = (jnp.asarray(schedule.model_times)[steps], abar, jnp.append(abar[1:], last), keys)
    x_T = jax.tree.map(lambda a: a.astype(jnp.float32), x_T)
    batch = jax.tree.leaves(x_T)[0].shape[0]
    denoise, memory = memory_lib.of(denoise_fn)

    def body(carry, now):
        x, memory = carry
        time, abar, abar_previous, step_key = now
        eps, memory = denoise(x, jnp.full((batch,), time), memory)
        noise = gaussian.noise_like(x, key=step_key) if eta else None
        x = step(x, eps, abar, abar_previous, noise, eta=eta, clip_x0=clip_x0)
        return (x, memory), None

    (x_0, _), _ = jax.lax.scan(body, (x_T, memory), inputs)
    return x_0
