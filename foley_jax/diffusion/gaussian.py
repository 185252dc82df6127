"""The forward process, what a network may predict, and the training loss.

Everything works on pytrees of arrays [B, ...]: a latent, or {"video": ..., "audio": ...}.
B batch.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from foley_jax.diffusion.schedule import Schedule

Prediction = Literal["eps", "v", "x0"]
Weighting = Literal["uniform", "inverse_alpha2", "inverse_sigma2"]
LEAST_SIGMA2 = 0.1  # of "inverse_sigma2": a share of noise below it weighs no more
Tree = Any  # pytree of [B, ...] arrays
DenoiseFn = Callable[[Tree, jax.Array], Tree]  # (x_t, float32 model time [B]) -> prediction


def per_example(values_B: jax.Array, like: jax.Array) -> jax.Array:
    """[B] -> [B, 1, ..., 1] of the rank of `like`."""
    return values_B.reshape(values_B.shape + (1,) * (like.ndim - values_B.ndim))


def combine(first_B: jax.Array, x: Tree, second_B: jax.Array, y: Tree) -> Tree:
    """first * x + second * y leaf by leaf in float32; the factors are one per example, [B]."""

    def leaf(a, b):
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        return per_example(first_B, a) * a + per_example(second_B, b) * b

    return jax.tree.map(leaf, x, y)


def squared_error(predicted: Tree, wanted: Tree) -> jax.Array:
    """Mean squared error per example in float32, [B]; leaves of a pytree add with weight 1."""

    def leaf(a, b):
        square = jnp.square(a.astype(jnp.float32) - b)
        return square.mean(axis=tuple(range(1, square.ndim)))

    return sum(jax.tree.leaves(jax.tree.map(leaf, predicted, wanted)))


def noise_like(x: Tree, *, key: jax.Array) -> Tree:
    """Standard normal float32 pytree of x's shapes, leaves drawn independently."""
    leaves, structure = jax.tree.flatten(x)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten([jax.random.normal(k, a.shape) for k, a in zip(keys, leaves)])


def draw_steps(schedule: Schedule, b: int, key: jax.Array, *, train: bool) -> jax.Array:
    """Steps of one training loss, one per example.

    Args:
      b: number of examples.
      key: of the draw; evaluation does not use it.
      train: True draws the steps uniformly. False spreads them evenly over the batch, so that
        losses of different runs can be compared.
    Returns:
      int32 [b] in [0, num_steps).
    """
    if train:
        return jax.random.randint(key, (b,), 0, schedule.num_steps)
    return ((jnp.arange(b) + 0.5) / b * schedule.num_steps).astype(jnp.int32)


def q_sample(schedule: Schedule, x0: Tree, t_B: jax.Array, noise: Tree) -> Tree:
    """Noises clean data to step t: sqrt(abar_t) * x0 + sqrt(1 - abar_t) * noise.

    Args:
      x0: clean data, pytree of float [B, ...].
      t_B: int32 steps in [0, num_steps), one per example.
      noise: standard normal, same structure as x0.
    Returns:
      Noised pytree, same structure, float32.
    Source: Ho et al. 2020, eq. 4; latent diffusion ddpm.py `q_sample`.
    """
    alpha_B = jnp.asarray(schedule.sqrt_alphas_cumprod)[t_B]
    sigma_B = jnp.asarray(schedule.sqrt_one_minus_alphas_cumprod)[t_B]
    return combine(alpha_B, x0, sigma_B, noise)


def target(schedule: Schedule, x0: Tree, t_B: jax.Array, noise: Tree, prediction: str) -> Tree:
    """Returns what a network of this `prediction` should say: noise, v or x0 (float32 pytree)."""
    _check(prediction)
    if prediction == "eps":
        return noise
    return v_target(schedule, x0, t_B, noise) if prediction == "v" else x0


def v_target(schedule: Schedule, x0: Tree, t_B: jax.Array, noise: Tree) -> Tree:
    """v = alpha * noise - sigma * x0. Source: Salimans and Ho 2022, appendix D."""
    alpha_B = jnp.asarray(schedule.sqrt_alphas_cumprod)[t_B]
    sigma_B = jnp.asarray(schedule.sqrt_one_minus_alphas_cumprod)[t_B]
    return combine(alpha_B, noise, -sigma_B, x0)


def to_x0(schedule: Schedule, x_t: Tree, t_B: jax.Array, predicted: Tree, prediction: str) -> Tree:
    """Clean data that a prediction at (fractional) model time t stands for, float32."""
    _check(prediction)
    if prediction == "x0":
        return predicted
    alpha_B, sigma_B = schedule.alpha_sigma_at(t_B)
    if prediction == "v":
        return combine(alpha_B, x_t, -sigma_B, predicted)
    return combine(1.0 / alpha_B, x_t, -sigma_B / alpha_B, predicted)


def to_eps(schedule: Schedule, x_t: Tree, t_B: jax.Array, predicted: Tree, prediction: str) -> Tree:
    """Noise that a prediction at (fractional) model time t stands for, float32."""
    _check(prediction)
    if prediction == "eps":
        return predicted
    alpha_B, sigma_B = schedule.alpha_sigma_at(t_B)
    if prediction == "v":
        return combine(alpha_B, predicted, sigma_B, x_t)
    return combine(1.0 / sigma_B, x_t, -alpha_B / sigma_B, predicted)


def as_eps(network: DenoiseFn, schedule: Schedule, prediction: str) -> DenoiseFn:
    """Turns a network of any prediction into the eps denoiser that samplers take."""
    _check(prediction)

    def denoise(x_t: Tree, t_B: jax.Array) -> Tree:
        return to_eps(schedule, x_t, t_B, network(x_t, t_B), prediction)

    return denoise


def training_loss(
    schedule: Schedule,
    denoise_fn: DenoiseFn,
    x0: Tree,
    t_B: jax.Array,
    noise: Tree,
    prediction: Prediction = "eps",
    weighting: Weighting = "uniform",
) -> jax.Array:
    """Mean squared error of the prediction, per example; leaves of a pytree add with weight 1.

    Args:
      denoise_fn: (x_t, float32 model times [B]) -> prediction, structure of x0.
      x0: clean data, pytree of [B, ...].
      t_B: int32 steps in [0, num_steps).
      noise: standard normal, structure of x0.
      prediction: "eps", "v" or "x0".
      weighting: "uniform"; "inverse_alpha2" = 1 / alpha(t)^2, under which the eps loss equals
        the v loss of the same denoiser; "inverse_sigma2" = 1 / max(sigma(t)^2, 0.1), under which
        the x0 loss does, but for the nearly clean steps.
    Returns:
      float32 [B].
    Raises:
      ValueError: unknown prediction or weighting.
    Source: latent diffusion ddpm.py `p_losses` (eps, uniform).
    """
    parts = part_losses(schedule, denoise_fn, x0, t_B, noise, prediction, weighting)
    return sum(jax.tree.leaves(parts))


def part_losses(
    schedule: Schedule,
    denoise_fn: DenoiseFn,
    x0: Tree,
    t_B: jax.Array,
    noise: Tree,
    prediction: Prediction = "eps",
    weighting: Weighting = "uniform",
) -> Tree:
    """`training_loss` of every leaf for itself: float32 [B] in the structure of x0."""
    x_t = q_sample(schedule, x0, t_B, noise)
    predicted = denoise_fn(x_t, jnp.asarray(schedule.model_times)[t_B])
    wanted = target(schedule, x0, t_B, noise, prediction)
    weight_B = loss_weight(schedule, t_B, weighting)

    def leaf(a, b):
        square = jnp.square(a.astype(jnp.float32) - b.astype(jnp.float32))
        return square.mean(axis=tuple(range(1, square.ndim))) * weight_B

    return jax.tree.map(leaf, predicted, wanted)


def loss_weight(schedule: Schedule, t_B: jax.Array, weighting: Weighting) -> jax.Array:
    """float32 [B] factors of the squared error at int32 steps t."""
    if weighting == "uniform":
        return jnp.ones(t_B.shape, jnp.float32)
    if weighting == "inverse_alpha2":
        return 1.0 / jnp.asarray(schedule.alphas_cumprod)[t_B]
    if weighting == "inverse_sigma2":
        sigma2_B = jnp.square(jnp.asarray(schedule.sqrt_one_minus_alphas_cumprod)[t_B])
        return 1.0 / jnp.maximum(sigma2_B, LEAST_SIGMA2)
    raise ValueError(f"weighting is {weighting!r}, expected one of {get_args(Weighting)}")


def _check(prediction: str) -> None:
    if prediction not in ("eps", "v", "x0"):
        raise ValueError(f"prediction is {prediction!r}, expected 'eps', 'v' or 'x0'")
