"""BatchNorm as in torch, optionally with ReLU, with gradients in as few passes as possible.

Statistics and arithmetic are float32 whatever the compute dtype; the batch is the global one.
"""

import functools

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.layers import rematerialisation

EPSILON = 1e-5  # torch's default
MOMENTUM = 0.9  # torch's 0.1: the share of the old running statistics


class BatchNorm(nnx.Module):
    """Normalises [..., C] over all axes but the last.

    The running variance keeps the biased batch variance; torch keeps n / (n - 1) times that.

    Args:
      two_pass: takes the variance about the mean, in a second pass. Without, it is E[x^2] - E[x]^2,
        which loses digits where a channel's mean is large beside its deviation, as in log-mels:
        then even the order of the sums, which the number of devices decides, shows in the loss.
    """

    def __init__(
        self,
        channels: int,
        *,
        epsilon: float = EPSILON,
        two_pass: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del rngs  # nothing is drawn
        self.epsilon, self.two_pass = epsilon, two_pass
        self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((channels,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((channels,), jnp.float32))
        self.dtype = dtype

    def __call__(self, x: jax.Array, *, train: bool, relu: bool = False) -> jax.Array:
        """Uses (and in training updates) the statistics; `relu` clips the result at zero."""
        scale, bias = self.scale[...], self.bias[...]
        if train:
            y, mean, var = _normalize(x, scale, bias, relu, self.epsilon, self.two_pass)
            self.mean[...] = MOMENTUM * self.mean[...] + (1 - MOMENTUM) * lax.stop_gradient(mean)
            self.var[...] = MOMENTUM * self.var[...] + (1 - MOMENTUM) * lax.stop_gradient(var)
        else:
            y = _affine(x, self.mean[...], self.var[...], scale, bias, relu, self.epsilon)
        return y.astype(self.dtype)


def _wide(x_C: jax.Array, like: jax.Array) -> jax.Array:
    """[C] -> [1, ..., 1, C]."""
    return x_C.reshape((1,) * (like.ndim - 1) + (-1,))


def _affine(x, mean, var, scale, bias, relu, epsilon):
    """(x - mean) / sqrt(var + eps) * scale + bias as one multiply-add."""
    a = scale * lax.rsqrt(var + epsilon)
    y = x.astype(jnp.float32) * _wide(a, x) + _wide(bias - mean * a, x)
    return jnp.maximum(y, 0.0) if relu else y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _normalize(x, scale, bias, relu, epsilon, two_pass):
    """Batch statistics and the normalised batch, in the type of x."""
    x32 = x.astype(jnp.float32)
    axes = tuple(range(x.ndim - 1))
    mean = x32.mean(axes)
    if two_pass:
        var = jnp.square(x32 - _wide(mean, x)).mean(axes)
    else:
        var = jnp.maximum(jnp.square(x32).mean(axes) - jnp.square(mean), 0.0)
    mean, var = rematerialisation.kept(mean), rematerialisation.kept(var)
    return _affine(x, mean, var, scale, bias, relu, epsilon).astype(x.dtype), mean, var


def _normalize_forward(x, scale, bias, relu, epsilon, two_pass):
    y, mean, var = _normalize(x, scale, bias, relu, epsilon, two_pass)
    return (y, mean, var), (x, mean, var, scale, bias)


def _normalize_backward(relu, epsilon, two_pass, residuals, cotangents):
    """Keeps only x: the mask of the ReLU and the normalised values are made again from it."""
    x, mean, var, scale, bias = residuals
    dy = cotangents[0].astype(jnp.float32)  # the statistics are used under stop_gradient
    if relu:
        dy = jnp.where(_affine(x, mean, var, scale, bias, False, epsilon) > 0, dy, 0.0)
    x32 = x.astype(jnp.float32)
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    rstd = lax.rsqrt(var + epsilon)
    dbias = dy.sum(axes)
    if two_pass:
        dscale = rstd * (dy * (x32 - _wide(mean, x))).sum(axes)
    else:
        dscale = rstd * ((dy * x32).sum(axes) - mean * dbias)
    # dx = scale * rstd * (dy - mean(dy) - normalised * mean(dy * normalised))
    a = scale * rstd
    slope = -a * rstd * dscale / count
    offset = -a * dbias / count - slope * mean
    dx = dy * _wide(a, x) + x32 * _wide(slope, x) + _wide(offset, x)
    return dx.astype(x.dtype), dscale, dbias


_normalize.defvjp(_normalize_forward, _normalize_backward)
