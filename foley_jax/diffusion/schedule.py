"""Noise tables of a discrete variance-preserving diffusion, and their values between steps.

Time is model time: a step index t in [0, num_steps - 1] of the training table, float32 and
fractional where a sampler wants it. x_t = alpha(t) * x_0 + sigma(t) * noise.
"""

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

Table = jax.Array | np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Schedule:
    """Float32 tables of shape [num_steps], rounded once from float64.

    Host arrays: nothing touches a device until a program uses them.

    Attributes:
      betas: noise variance added by step t.
      alphas_cumprod, alphas_cumprod_prev: prod(1 - beta) up to and with / before step t.
      sqrt_alphas_cumprod, sqrt_one_minus_alphas_cumprod: alpha(t) and sigma(t).
      log_alpha: 0.5 * log(alphas_cumprod).
      sqrt_recip_alphas_cumprod, sqrt_recipm1_alphas_cumprod: x_0 = first * x_t - second * eps.
      posterior_variance, posterior_log_variance_clipped: of q(x_{t-1} | x_t, x_0).
      posterior_mean_coef1, posterior_mean_coef2: its mean is first * x_0 + second * x_t.
      model_times: what the network is told at table index i; arange unless respaced.
    """

    betas: Table
    alphas_cumprod: Table
    alphas_cumprod_prev: Table
    sqrt_alphas_cumprod: Table
    sqrt_one_minus_alphas_cumprod: Table
    log_alpha: Table
    sqrt_recip_alphas_cumprod: Table
    sqrt_recipm1_alphas_cumprod: Table
    posterior_variance: Table
    posterior_log_variance_clipped: Table
    posterior_mean_coef1: Table
    posterior_mean_coef2: Table
    model_times: Table

    @property
    def num_steps(self) -> int:
        return self.betas.shape[0]

    def log_alpha_at(self, t: jax.Array) -> jax.Array:
        """log alpha at model time `t` (any shape, clipped to the table), linear between steps.

        Source: dpm_solver.py `NoiseScheduleVP('discrete')`, whose knots lie at (i + 1) / num_steps.
        """
        table = jnp.asarray(self.log_alpha)
        t = jnp.clip(jnp.asarray(t, jnp.float32), 0.0, self.num_steps - 1)
        left = jnp.minimum(t.astype(jnp.int32), self.num_steps - 2)
        low, high = table[left], table[left + 1]
        return low + (t - left.astype(jnp.float32)) * (high - low)

    def alpha_sigma_at(self, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """alpha(t) and sigma(t) = sqrt(1 - alpha(t)^2) at fractional model time, shape of `t`."""
        log_alpha = self.log_alpha_at(t)
        return jnp.exp(log_alpha), _sigma(log_alpha)

    def lambda_at(self, t: jax.Array) -> jax.Array:
        """Half the log signal-to-noise ratio, log(alpha(t) / sigma(t)), shape of `t`."""
        log_alpha = self.log_alpha_at(t)
        return log_alpha - jnp.log(_sigma(log_alpha))


def _sigma(log_alpha: jax.Array) -> jax.Array:
    # expm1 keeps the digits that 1 - exp(2 log_alpha) loses near t = 0
    return jnp.sqrt(-jnp.expm1(2.0 * log_alpha))


def from_betas(betas: np.ndarray, model_times: np.ndarray | None = None) -> Schedule:
    """Builds every table from float64 variances.

    Args:
      betas: [num_steps], each in (0, 1); at least 2 steps.
      model_times: [num_steps] times the network is told; default 0, 1, ...
    Raises:
      ValueError: betas are not a vector of two or more numbers in (0, 1).
    Source: latent diffusion ddpm.py `register_schedule` (v_posterior 0).
    """
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or betas.size < 2 or not 0 < betas.min() <= betas.max() < 1:
        raise ValueError(
            f"betas have shape {betas.shape}, expected a vector of 2 or more numbers in (0, 1)"
        )
    alphas_cumprod = np.cumprod(1.0 - betas)
    alphas_cumprod_prev = np.append(1.0, alphas_cumprod[:-1])
    posterior_variance = betas * (1.0 - alphas_cumprod_prev) / (1.0 - alphas_cumprod)
    tables = {
        "betas": betas,
        "alphas_cumprod": alphas_cumprod,
        "alphas_cumprod_prev": alphas_cumprod_prev,
        "sqrt_alphas_cumprod": np.sqrt(alphas_cumprod),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1.0 - alphas_cumprod),
        "log_alpha": 0.5 * np.log(alphas_cumprod),
        "sqrt_recip_alphas_cumprod": np.sqrt(1.0 / alphas_cumprod),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1.0 / alphas_cumprod - 1.0),
        "posterior_variance": posterior_variance,
        # step 0 has variance 0
        "posterior_log_variance_clipped": np.log(np.maximum(posterior_variance, 1e-20)),
        "posterior_mean_coef1": betas * np.sqrt(alphas_cumprod_prev) / (1.0 - alphas_cumprod),
        "posterior_mean_coef2": (1.0 - alphas_cumprod_prev)
        * np.sqrt(1.0 - betas)
        / (1.0 - alphas_cumprod),
        "model_times": np.arange(betas.size) if model_times is None else model_times,
    }
    return Schedule(**{name: np.asarray(table, np.float32) for name, table in tables.items()})


def scaled_linear(
    beta_start: float = 0.00085, beta_end: float = 0.012, num_steps: int = 1000
) -> Schedule:
    """Stable Diffusion's and Diff-Foley's schedule: sqrt(beta) is linear in the step."""
    return from_betas(np.linspace(beta_start**0.5, beta_end**0.5, num_steps) ** 2)


def linear(beta_start: float = 1e-4, beta_end: float = 0.02, num_steps: int = 1000) -> Schedule:
    """DDPM's and MM-Diffusion's schedule: beta is linear in the step."""
    return from_betas(np.linspace(beta_start, beta_end, num_steps))


def cosine(num_steps: int = 1000, *, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """Cosine schedule: alphas_cumprod follows cos^2((t + offset) / (1 + offset) * pi / 2).

    Source: Nichol and Dhariwal 2021, eq. 17; guided_diffusion `betas_for_alpha_bar`.
    """
    t = np.arange(num_steps + 1) / num_steps
    alpha_bar = np.cos((t + offset) / (1 + offset) * np.pi / 2) ** 2
    return from_betas(np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], max_beta))


def respace(schedule: Schedule, steps: Sequence[int]) -> Schedule:
    """The shorter diffusion that visits only `steps` of a longer one.

    Args:
      steps: increasing indices into `schedule`.
    Raises:
      ValueError: fewer than two steps, not increasing or outside the table.
    Source: guided_diffusion respace.py `SpacedDiffusion`.
    """
    index = np.asarray(steps, np.int64)
    inside = index.size >= 2 and index[0] >= 0 and index[-1] < schedule.num_steps
    if not inside or np.any(np.diff(index) <= 0):
        raise ValueError(
            f"steps {list(steps)[:4]}... are not two or more increasing indices below "
            f"{schedule.num_steps}"
        )
    # in float64 again, so that respacing to all steps is the identity to rounding
    kept = np.cumprod(1.0 - np.asarray(schedule.betas, np.float64))[index]
    betas = 1.0 - kept / np.append(1.0, kept[:-1])
    return from_betas(betas, np.asarray(schedule.model_times)[index])
