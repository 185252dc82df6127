"""Networks that also predict the variance of a step, between its two usual choices.

The network's output has twice the channels of the data: noise, then values v in about [-1, 1];
log variance = (v + 1) / 2 * log(beta) + (1 - v) / 2 * log(posterior variance). The mean comes
from the noise alone, the variance is trained by the variational bound. A network may predict
v or clean data instead of noise; guided diffusion's predict noise.

B batch, C channels of the data; channels last.
"""

import math

import jax
import jax.numpy as jnp

from foley_jax.diffusion import gaussian
from foley_jax.diffusion import schedule as schedule_lib
from foley_jax.diffusion.samplers import ddpm
from foley_jax.diffusion.schedule import Schedule

PIXEL = 1.0 / 255.0  # half the distance of two 8-bit values in [-1, 1]


def split(output: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Noise and variance values, each [B, ..., C], of an output [B, ..., 2 C], float32.

    Raises:
      ValueError: the number of channels is odd.
    """
    if output.shape[-1] % 2:
        raise ValueError(
            f"the network gives {output.shape[-1]} channels; noise and variance need an even number"
        )
    eps, values = jnp.split(output.astype(jnp.float32), 2, axis=-1)
    return eps, values


def eps_only(
    network: gaussian.DenoiseFn, schedule: Schedule, prediction: str = "eps"
) -> gaussian.DenoiseFn:
    """The denoiser for samplers with a variance of their own (DDIM, DPM-Solver).

    Args:
      network: (x, float32 model times [B]) -> [B, ..., 2 C].
      schedule: that of its training.
      prediction: "eps", "v" or "x0", what the first half of its output is.
    """
    first_half = lambda x, t_B: split(network(x, t_B))[0]  # noqa: E731
    return gaussian.as_eps(first_half, schedule, prediction)


def log_variance(schedule: Schedule, values: jax.Array, index_B: jax.Array) -> jax.Array:
    """Log variance of p(x_{i-1} | x_i) that `values` stand for, float32 of their shape.

    The posterior variance of index 0 is zero; that of index 1 stands in for it.
    Source: guided_diffusion `p_mean_variance`, LEARNED_RANGE.
    """
    low, high = _log_bounds(schedule, index_B)
    share = (values + 1.0) / 2.0
    return share * gaussian.per_example(high, values) + (1.0 - share) * gaussian.per_example(
        low, values
    )


def _log_bounds(schedule: Schedule, index_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logarithms of the posterior variance and of beta, [B]."""
    low_B = jnp.log(jnp.asarray(schedule.posterior_variance)[jnp.maximum(index_B, 1)])
    return low_B, jnp.log(jnp.asarray(schedule.betas)[index_B])


def _posterior_mean(schedule: Schedule, x0: jax.Array, x: jax.Array, index_B: jax.Array):
    first_B = jnp.asarray(schedule.posterior_mean_coef1)[index_B]
    return gaussian.combine(first_B, x0, jnp.asarray(schedule.posterior_mean_coef2)[index_B], x)


def mean_and_log_variance(
    schedule: Schedule,
    x: jax.Array,
    output: jax.Array,
    index_B: jax.Array,
    *,
    clip_x0: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """p(x_{i-1} | x_i) of a network's output.

    Args:
      x: noisy data [B, ..., C].
      output: [B, ..., 2 C].
      index_B: int32 table indices.
      clip_x0: clip the data prediction to [-1, 1].
    Returns:
      Mean and log variance, float32 [B, ..., C].
    """
    eps, values = split(output)
    recip_B = jnp.asarray(schedule.sqrt_recip_alphas_cumprod)[index_B]
    x0 = gaussian.combine(
        recip_B, x, -jnp.asarray(schedule.sqrt_recipm1_alphas_cumprod)[index_B], eps
    )
    x0 = jnp.clip(x0, -1.0, 1.0) if clip_x0 else x0
    return _posterior_mean(schedule, x0, x, index_B), log_variance(schedule, values, index_B)


def step(
    schedule: Schedule,
    x: jax.Array,
    output: jax.Array,
    index_B: jax.Array,
    noise: jax.Array,
    *,
    clip_x0: bool = False,
) -> jax.Array:
    """Draws x_{i-1} with the predicted variance; without noise at index 0.

    Args:
      x, noise: float32 [B, ..., C]; output: [B, ..., 2 C].
      index_B: int32 table indices.
      clip_x0: clip the data prediction to [-1, 1].
    Source: guided_diffusion `p_sample`.
    """
    mean, log_var = mean_and_log_variance(schedule, x, output, index_B, clip_x0=clip_x0)
    moves_B = (index_B != 0).astype(jnp.float32)
    return mean + gaussian.per_example(moves_B, mean) * jnp.exp(0.5 * log_var) * noise


def sample(
    network: gaussian.DenoiseFn,
    schedule: Schedule,
    x_T: jax.Array,
    *,
    key: jax.Array,
    num_steps: int | None = None,
    clip_x0: bool = False,
) -> jax.Array:
    """Walks from noise to data by ancestral draws with the predicted variance, one scan.

    Args:
      network: (x, float32 model times [B]) -> [B, ..., 2 C].
      x_T: standard normal float32 [B, ..., C].
      key: of all draws.
      num_steps: static; the schedule is respaced evenly to so many steps. Default: all of them.
      clip_x0: see `step`.
    Returns:
      float32 like x_T.
    Raises:
      ValueError: num_steps outside 2 to the table's length.
    Source: guided_diffusion `p_sample_loop`.
    """
    if num_steps is not None and num_steps != schedule.num_steps:
        schedule = schedule_lib.respace(schedule, ddpm.even_steps(schedule, num_steps))
    count, batch = schedule.num_steps, x_T.shape[0]
    times = jnp.asarray(schedule.model_times)

    def body(x, now):
        index, step_key = now
        index_B = jnp.full((batch,), index)
        output = network(x, times[index_B])
        noise = jax.random.normal(step_key, x.shape)
        return step(schedule, x, output, index_B, noise, clip_x0=clip_x0), None

    inputs = (jnp.arange(count)[::-1], jax.random.split(key, count))
    return jax.lax.scan(body, x_T.astype(jnp.float32), inputs)[0]


def _mean(x: jax.Array) -> jax.Array:
    """[B, ...] -> [B]."""
    return x.mean(axis=tuple(range(1, x.ndim)))


def gaussian_kl(
    mean1: jax.Array, log_var1: jax.Array, mean2: jax.Array, log_var2: jax.Array
) -> jax.Array:
    """KL divergence of two normal distributions element by element, in nats."""
    scaled = jnp.square(mean1 - mean2) * jnp.exp(-log_var2)
    return 0.5 * (-1.0 + log_var2 - log_var1 + jnp.exp(log_var1 - log_var2) + scaled)


def _normal_cdf(x: jax.Array) -> jax.Array:
    """The official approximation by a hyperbolic tangent, wrong by 3e-4 at most.

    XLA's tanh is one from 7.9 on, torch's from 9: far from the mean that is the difference
    between a likelihood of 1e-7 and the floor of 1e-12. Hence the tangent by way of the logistic
    function, which rounds as torch does.
    """
    y = 2.0 * math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)
    tail = 2.0 * jax.nn.sigmoid(jnp.where(y < 0, y, -y))
    return 0.5 * (1.0 + jnp.where(y < 0, tail - 1.0, 1.0 - tail))


def discretised_log_likelihood(x: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """Log of the mass that a normal distribution has on the 8-bit value x, element by element.

    Args:
      x: float32, 8-bit values scaled to [-1, 1]; the two outermost own all beyond them.
    Source: guided_diffusion losses.py `discretized_gaussian_log_likelihood`.
    """
    centred, scale = x - mean, jnp.exp(-log_std)
    above, below = _normal_cdf(scale * (centred + PIXEL)), _normal_cdf(scale * (centred - PIXEL))
    mass = jnp.where(x < -0.999, above, jnp.where(x > 0.999, 1.0 - below, above - below))
    return jnp.log(jnp.maximum(mass, 1e-12))


def bound_terms(
    schedule: Schedule, x0: jax.Array, x_t: jax.Array, output: jax.Array, index_B: jax.Array
) -> jax.Array:
    """The variational bound's term of step i in bits per element, float32 [B].

    KL(q(x_{i-1} | x_i, x_0), p(x_{i-1} | x_i)), or at i = 0 the negative log likelihood of the
    clean data as 8-bit values.

    Args:
      x0, x_t: clean data in [-1, 1] and its noisy version, [B, ..., C].
      output: of the network for x_t, [B, ..., 2 C].
      index_B: int32 table indices.
    Source: guided_diffusion `_vb_terms_bpd`.
    """
    mean, log_var = mean_and_log_variance(schedule, x_t, output, index_B)
    true_mean = _posterior_mean(schedule, x0, x_t, index_B)
    low = gaussian.per_example(_log_bounds(schedule, index_B)[0], x_t)
    kl_B = _mean(gaussian_kl(true_mean, low, mean, log_var))
    nll_B = -_mean(discretised_log_likelihood(x0, mean, 0.5 * log_var))
    return jnp.where(index_B == 0, nll_B, kl_B) / math.log(2.0)


def training_losses(
    schedule: Schedule,
    network: gaussian.DenoiseFn,
    x0: jax.Array,
    t_B: jax.Array,
    noise: jax.Array,
    prediction: str = "eps",
) -> tuple[jax.Array, jax.Array]:
    """Squared error of the prediction, and the bound, which trains the variance only.

    Args:
      network: (x_t, float32 model times [B]) -> [B, ..., 2 C].
      x0: clean data [B, ..., C] in [-1, 1].
      t_B: int32 steps in [0, num_steps).
      noise: standard normal like x0.
      prediction: "eps", "v" or "x0", what the first half of the output is.
    Returns:
      Two float32 [B]; the training loss is their sum. (Its rescaled variant multiplies the bound
      by num_steps / 1000.)
    Source: guided_diffusion `training_losses`, LossType.MSE with LEARNED_RANGE.
    """
    x0 = x0.astype(jnp.float32)
    x_t = gaussian.q_sample(schedule, x0, t_B, noise)
    times_B = jnp.asarray(schedule.model_times)[t_B]
    predicted, values = split(network(x_t, times_B))
    wanted = gaussian.target(schedule, x0, t_B, noise, prediction)
    # no gradient of the bound reaches the prediction
    frozen = gaussian.to_eps(schedule, x_t, times_B, jax.lax.stop_gradient(predicted), prediction)
    bound_B = bound_terms(schedule, x0, x_t, jnp.concatenate([frozen, values], axis=-1), t_B)
    return _mean(jnp.square(predicted - wanted)), bound_B
