"""Flow matching: straight paths from noise to data, their times and loss, and ODE solvers.

Time runs from 0 (noise) to 1 (data), the other way round than in `gaussian`. Everything works on
pytrees of arrays [B, ...]; a velocity function maps (x, float32 times [B]) to dx/dt in x's
structure, so that `guidance.classifier_free` serves it as it serves any prediction.
B batch.
Source: Lipman et al. 2022, Tong et al. 2023; MMAudio's `flow_matching.py`.
"""

from typing import Literal, get_args

import jax
from jax.experimental import ode
import jax.numpy as jnp
import numpy as np

from foley_jax.diffusion import gaussian
from foley_jax.diffusion import stateful as memory_lib

Method = Literal["euler", "heun"]


def on_path(
    noise: gaussian.Tree, data: gaussian.Tree, t_B: jax.Array, min_sigma: float = 0.0
) -> gaussian.Tree:
    """Returns the point of the straight path at time t: (1 - (1 - m) t) noise + t data.

    Args:
      noise: standard normal, pytree of float [B, ...].
      data: the same structure.
      t_B: float32 times in [0, 1], one per example.
      min_sigma: m, the noise that is left at time 1.
    Returns:
      float32 pytree.
    """
    return gaussian.combine(1.0 - (1.0 - min_sigma) * t_B, noise, t_B, data)


def velocity(noise: gaussian.Tree, data: gaussian.Tree, min_sigma: float = 0.0) -> gaussian.Tree:
    """Returns the derivative of `on_path` by time, the network's target: data - (1 - m) noise."""

    def leaf(a, b):
        return b.astype(jnp.float32) - (1.0 - min_sigma) * a.astype(jnp.float32)

    return jax.tree.map(leaf, noise, data)


def draw_times(
    b: int, key: jax.Array, *, train: bool, mean: float = 0.0, scale: float = 1.0
) -> jax.Array:
    """Times of one training loss, one per example: sigmoid(scale n + mean), n standard normal.

    Args:
      b: number of examples.
      key: of the draw; evaluation does not use it.
      train: True draws n. False spreads its quantiles evenly over the batch, so that losses of
        different runs can be compared.
      mean, scale: of the logit.
    Returns:
      float32 [b] in (0, 1).
    Source: Esser et al. 2024 (logit-normal), mean 0 and scale 1 in MMAudio.
    """
    if train:
        normal_B = jax.random.normal(key, (b,))
    else:
        normal_B = jax.scipy.special.ndtri((jnp.arange(b) + 0.5) / b)
    return jax.nn.sigmoid(scale * normal_B + mean)


def training_loss(
    velocity_fn: gaussian.DenoiseFn,
    data: gaussian.Tree,
    t_B: jax.Array,
    noise: gaussian.Tree,
    min_sigma: float = 0.0,
) -> jax.Array:
    """Mean squared error of the velocity, per example; leaves of a pytree add with weight 1.

    Args:
      velocity_fn: (x_t, t_B) -> velocity, structure of x.
      data: clean data, pytree of [B, ...].
      t_B: float32 times in [0, 1].
      noise: standard normal, structure of `data`.
      min_sigma: see `on_path`.
    Returns:
      float32 [B].
    """
    predicted = velocity_fn(on_path(noise, data, t_B, min_sigma), t_B)
    return gaussian.squared_error(predicted, velocity(noise, data, min_sigma))


def time_grid(num_steps: int, start: float = 0.0, stop: float = 1.0) -> np.ndarray:
    """Returns the times of a solver, float32 [num_steps + 1], as `torch.linspace` rounds them.

    Raises:
      ValueError: num_steps < 1.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}, expected at least 1")
    start, stop = np.float32(start), np.float32(stop)
    step = (stop - start) / np.float32(num_steps)
    index = np.arange(num_steps + 1, dtype=np.float32)
    # torch counts the second half from the end
    first_half = index < (num_steps + 1) // 2
    return np.where(first_half, start + step * index, stop - step * (num_steps - index))


def sample(
    velocity_fn: gaussian.DenoiseFn | memory_lib.Denoiser,
    x: gaussian.Tree,
    *,
    num_steps: int = 25,
    method: Method = "euler",
    start: float = 0.0,
    stop: float = 1.0,
) -> gaussian.Tree:
    """Follows a flow from one time to another in equal steps, in one scan.

    Args:
      velocity_fn: (x, float32 times [B]) -> velocity, structure of x.
      x: pytree of [B, ...] at time `start`: standard normal at 0.
      num_steps: static, at least 1; "heun" evaluates twice a step.
      method: "euler" (first order, MMAudio's), or "heun" (second order).
      start, stop: times. A flow trained with min_sigma m is followed to 1 - m; from 1 to 0 it
        takes data back to its noise.
    Returns:
      x at time `stop`, float32.
    Raises:
      ValueError: unknown method, or num_steps < 1.
    """
    if method not in get_args(Method):
        raise ValueError(f"method is {method!r}, expected one of {', '.join(get_args(Method))}")
    x = jax.tree.map(lambda a: a.astype(jnp.float32), x)
    batch = jax.tree.leaves(x)[0].shape[0]
    evaluate, memory = memory_lib.of(velocity_fn)

    def move(x: gaussian.Tree, length: jax.Array, v: gaussian.Tree) -> gaussian.Tree:
        return jax.tree.map(lambda a, b: a + length * b.astype(jnp.float32), x, v)

    def step(carry, times):
        x, memory = carry
        here, there = times
        v, memory = evaluate(x, jnp.full((batch,), here), memory)
        if method == "heun":
            ahead = move(x, there - here, v)
            second, memory = evaluate(ahead, jnp.full((batch,), there), memory)
            v = jax.tree.map(lambda a, b: (a.astype(jnp.float32) + b) / 2, v, second)
        return (move(x, there - here, v), memory), None

    grid = time_grid(num_steps, start, stop)
    (x, _), _ = jax.lax.scan(step, (x, memory), (grid[:-1], grid[1:]))
    return x


def sample_adaptive(
    velocity_fn: gaussian.DenoiseFn,
    x: gaussian.Tree,
    *,
    relative: float = 1e-5,
    absolute: float = 1e-5,
    stop: float = 1.0,
) -> gaussian.Tree:
    """Follows a flow from time 0 to `stop` by Dormand and Prince's method with error control.

    How often the network is asked depends on the data; the items of a batch share their steps.

    Args:
      velocity_fn, x: see `sample`.
      relative, absolute: error allowed in a step.
    Returns:
      x at time `stop`, float32.
    """
    x = jax.tree.map(lambda a: a.astype(jnp.float32), x)
    batch = jax.tree.leaves(x)[0].shape[0]

    def derivative(x: gaussian.Tree, time: jax.Array) -> gaussian.Tree:
        v = velocity_fn(x, jnp.full((batch,), time))
        return jax.tree.map(lambda a: a.astype(jnp.float32), v)

    times = jnp.array([0.0, stop], jnp.float32)
    both_ends = ode.odeint(derivative, x, times, rtol=relative, atol=absolute)
    return jax.tree.map(lambda a: a[-1], both_ends)
