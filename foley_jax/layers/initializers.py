"""Initialisers with torch's default distributions, for training from scratch as the sources do."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from foley_jax.runtime import init_keys

Initializer = Callable[..., jax.Array]

# torch: kaiming_uniform(a=sqrt(5)) == U(-1/sqrt(fan_in), 1/sqrt(fan_in)) == variance 1/(3 fan_in)
KERNEL_VARIANCE = 1.0 / 3.0


def kernel(*, zero: bool = False) -> Initializer:
    """Initialiser of a conv or dense kernel [..., in, out]: torch default, or zeros.

    Source: torch.nn.Linear.reset_parameters; OpenAI `zero_module` for zero=True.
    """
    if zero:
        return jax.nn.initializers.zeros
    return drawn(jax.nn.initializers.variance_scaling(KERNEL_VARIANCE, "fan_in", "uniform"))


def xavier() -> Initializer:
    """Initialiser of a dense kernel: U(-a, a), a^2 = 6 / (fan in + fan out)."""
    return drawn(jax.nn.initializers.xavier_uniform())


def normal(std: float) -> Initializer:
    """Initialiser of normal weights around zero."""
    return drawn(jax.nn.initializers.normal(std))


def bias(fan_in: int, *, zero: bool = False) -> Initializer:
    """Initialiser of a bias: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), or zeros."""
    if zero:
        return jax.nn.initializers.zeros
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, minval=-bound, maxval=bound)

    return drawn(init)


def drawn(init: Initializer) -> Initializer:
    """Returns `init`, which draws nothing where only shapes are asked for."""

    def zeros_or_drawn(key, shape, dtype=jnp.float32):
        if key is init_keys.no_weights():
            return jnp.zeros(shape, dtype)
        return init(key, shape, dtype)

    return zeros_or_drawn
