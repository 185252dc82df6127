"""Moving averages of weights whose length is chosen after training.

Two averages with power-law profiles are kept during training; from snapshots of both, the average
of any other length is a weighted sum. Lengths are `sigma_rel`, the width of the profile as a share
of the training.
Source: Karras et al. 2023 (EDM2), section 3, appendix C; nitrous-ema 0.0.1's step correction.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

SIGMAS = (0.05, 0.1)  # kept by MMAudio


def gamma_of(sigma_rel: float) -> float:
    """Returns the exponent of a profile: 16.97 for 0.05, 6.94 for 0.1.

    Raises:
      ValueError: not between 0 and 0.28, where there is a profile.
    """
    if not 0 < sigma_rel < 0.28:
        raise ValueError(f"sigma_rel is {sigma_rel}, expected above 0 and below 0.28")
    square = sigma_rel**-2
    roots = np.roots([1.0, 7.0, 16.0 - square, 12.0 - square])
    return float(roots[np.isreal(roots)].real.max())


def sigmas_of(config: ml_collections.ConfigDict) -> tuple[float, ...]:
    """Returns the lengths that a run keeps averages of; the first of them is its `ema`.

    Raises:
      ValueError: one has no profile, comes twice, or stands beside another moving average.
    """
    sigmas = tuple(float(sigma) for sigma in config.get("power_ema", {}).get("sigmas", ()))
    if sigmas and config.ema_decay:
        raise ValueError(
            f"config.power_ema.sigmas is {sigmas} and config.ema_decay {config.ema_decay}; a run "
            "keeps averages of one kind: set one of them to () or 0"
        )
    if len({gamma_of(sigma) for sigma in sigmas}) < len(sigmas):
        raise ValueError(f"config.power_ema.sigmas is {sigmas}, expected each length once")
    return sigmas


def taken(update: int | jax.Array, gamma: float) -> jax.Array:
    """Returns the share of the weights that an update takes into the average, float32.

    1 - [(1 - 1/(u + 1)) (1 - 1/(u + 2))]^((gamma + 1) / 2) at update u; all of them at the first.

    Args:
      update: 1, 2, ...: how often the average was updated, this time included.
      gamma: see `gamma_of`.
    """
    u = jnp.asarray(update, jnp.float32)
    # a share of 1e-5 does not survive the difference of two numbers near 1
    kept_log = (jnp.log1p(-1 / (u + 1)) + jnp.log1p(-1 / (u + 2))) * ((gamma + 1) / 2)
    return jnp.where(u <= 1, 1.0, -jnp.expm1(kept_log))


def updated(average: Any, params: Any, share: jax.Array) -> Any:
    """Returns the next average: average + share (params - average), leaf by leaf."""
    return jax.tree.map(lambda a, p: a + share * (p - a), average, params)


def synthesis_weights(
    times: Sequence[float], gammas: Sequence[float], time: float, gamma: float
) -> np.ndarray:
    """Returns the weights of snapshots in the average that comes nearest to a wanted one.

    Args:
      times: updates after which each snapshot was taken.
      gammas: exponent of each.
      time, gamma: of the wanted average.
    Returns:
      float64, one for each snapshot.
    """
    t, g = np.asarray(times, np.float64), np.asarray(gammas, np.float64)
    matrix = _product(t[:, None], g[:, None], t[None], g[None])
    return np.linalg.solve(matrix, _product(t, g, np.float64(time), np.float64(gamma)))


def synthesised(
    snapshots: Iterable[Mapping[str, np.ndarray]], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the weighted sum of flat snapshots, summed in float64 one by one, as float32."""
    total: dict[str, np.ndarray] = {}
    for weight, snapshot in zip(weights, snapshots, strict=True):
        for name, leaf in snapshot.items():
            total[name] = total.get(name, 0.0) + weight * np.asarray(leaf, np.float64)
    return {name: np.asarray(leaf, np.float32) for name, leaf in total.items()}


def _product(ta, ga, tb, gb) -> np.ndarray:
    """The scalar product of two profiles."""
    exponent = np.where(ta < tb, gb, -ga)
    top = (ga + 1) * (gb + 1) * (ta / tb) ** exponent
    return top / ((ga + gb + 1) * np.maximum(ta, tb))
