"""Guidance: functions from a denoiser to a denoiser, free to be stacked.

B batch. A denoiser maps (x, float32 model times [B]) to a prediction of x's structure.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from foley_jax.diffusion import gaussian
from foley_jax.diffusion.schedule import Schedule


def classifier_free(
    denoise_fn: Callable[[gaussian.Tree, jax.Array, Any], gaussian.Tree],
    context: Any,
    null_context: Any,
    scale: float | jax.Array,
) -> gaussian.DenoiseFn:
    """Moves away from the unconditional prediction: u + scale * (c - u).

    One evaluation on a batch of 2 B, [unconditional; conditional]. A Python `scale` of exactly 1
    skips the unconditional half. Linear, so it serves eps, v and x0 predictions alike.

    Args:
      denoise_fn: (x, t, context) -> prediction.
      context: pytree of [B, ...], the condition.
      null_context: same structure and shapes, the condition dropped in training.
      scale: 1 is plain conditional, 0 unconditional.
    Source: Ho and Salimans 2022; dpm_solver.py `model_wrapper`.
    """
    if isinstance(scale, (int, float)) and scale == 1:
        return lambda x, t_B: denoise_fn(x, t_B, context)
    both_contexts = _stack(null_context, context)

    def denoise(x: gaussian.Tree, t_B: jax.Array) -> gaussian.Tree:
        both = denoise_fn(_stack(x, x), _stack(t_B, t_B), both_contexts)
        batch = t_B.shape[0]
        return jax.tree.map(lambda a: a[:batch] + scale * (a[batch:] - a[:batch]), both)

    return denoise


def _stack(first: Any, second: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)


def double_guidance(
    denoise_fn: gaussian.DenoiseFn,
    log_prob_fn: Callable[[gaussian.Tree, jax.Array], jax.Array],
    schedule: Schedule,
    scale: float | jax.Array,
) -> gaussian.DenoiseFn:
    """Diff-Foley's alignment guidance: eps - scale * sigma_t * grad_x sum_b log p(x_b, t_b).

    The official solver drops this term when the classifier-free scale is exactly 1; here it
    always acts, so leave this wrapper out to reproduce that.

    Args:
      denoise_fn: eps denoiser, usually already classifier-free guided.
      log_prob_fn: (x, t) -> float32 [B], log of the classifier's probability of a match.
      scale: 50 in the paper.
    Source: dpm_solver.py:1340-1393; Dhariwal and Nichol 2021, section 4.
    """

    def denoise(x: gaussian.Tree, t_B: jax.Array) -> gaussian.Tree:
        eps = denoise_fn(x, t_B)
        gradient = jax.grad(lambda y: jnp.sum(log_prob_fn(y, t_B)))(x)
        _, sigma_B = schedule.alpha_sigma_at(t_B)
        return gaussian.combine(jnp.ones_like(sigma_B), eps, -scale * sigma_B, gradient)

    return denoise


def from_v(network: gaussian.DenoiseFn, schedule: Schedule) -> gaussian.DenoiseFn:
    """Eps denoiser of a v-predicting network: alpha * v + sigma * x."""
    return gaussian.as_eps(network, schedule, "v")


def from_x0(network: gaussian.DenoiseFn, schedule: Schedule) -> gaussian.DenoiseFn:
    """Eps denoiser of an x0-predicting network: (x - alpha * x0) / sigma."""
    return gaussian.as_eps(network, schedule, "x0")
