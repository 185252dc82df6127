"""The samplers' arithmetic in torch, around any network: one evaluation a step.

B batch, N steps. Tensors, or dicts of them, of one clip or window each.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def _map(fn: Callable, *trees: Any) -> Any:
    if isinstance(trees[0], dict):
        return {key: fn(*(tree[key] for tree in trees)) for key in trees[0]}
    return fn(*trees)


def dpm_solver(
    eps: Callable[[Any, float], Any],
    x: Any,
    times: Sequence[float],
    alpha: np.ndarray,
    sigma: np.ndarray,
) -> Any:
    """DPM-Solver++(2M), see `foley_jax.diffusion.samplers.dpm_multistep.sample`.

    Args:
      eps: (x, model time) -> noise.
      x: standard normal.
      times: N + 1 model times; the last one is not evaluated.
      alpha, sigma: float64 [N + 1], at these times.
    """
    h = np.diff(np.log(alpha / sigma))
    slopes = [0.0, *(0.5 * h[1:] / h[:-1])]
    if len(h) < 15:
        slopes[-1] = 0.0
    previous = None
    for i, slope in enumerate(slopes):
        noise = eps(x, float(times[i]))
        data = _map(lambda a, e, i=i: (a - float(sigma[i]) * e) / float(alpha[i]), x, noise)
        keep, push = float(sigma[i + 1] / sigma[i]), float(-alpha[i + 1] * np.expm1(-h[i]))
        before = data if previous is None else previous

        def leaf(a, m0, m1, keep=keep, push=push, slope=float(slope)):
            return keep * a + push * (m0 + slope * (m0 - m1))

        x, previous = _map(leaf, x, data, before), data
    return x


def ddim(
    eps: Callable[[Any, float], Any],
    x: Any,
    times: Sequence[float],
    abar: np.ndarray,
) -> Any:
    """Deterministic DDIM that ends clean and clips its data predictions to [-1, 1].

    See `foley_jax.diffusion.samplers.ddim.sample` with offset 0 and clip_x0.

    Args:
      eps: (x, model time) -> noise.
      x: standard normal.
      times: N model times, from noise to data.
      abar: float64 [N], squared shares of the data at these times.
    """
    after = [*abar[1:], 1.0]
    for time, now, then in zip(times, abar, after):

        def leaf(a, e, now=float(now), then=float(then)):
            data = ((a - (1 - now) ** 0.5 * e) / now**0.5).clamp(-1.0, 1.0)
            e = (a - now**0.5 * data) / (1 - now) ** 0.5
            return then**0.5 * data + (1 - then) ** 0.5 * e

        x = _map(leaf, x, eps(x, float(time)))
    return x
