"""Snake activations between an upsampling by two and its inverse, so that they do not alias.

B batch, T time, C channels, K filter taps; channels last.
"""

from typing import Literal

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

Kind = Literal["snake", "snakebeta"]
TAPS = 12  # of both low-pass filters in every public BigVGAN
_GUARD = 1e-9  # the source's `no_div_by_zero`


class Filter(nnx.Variable):
    """A low-pass filter, float32 [TAPS]; saved with the model, never trained."""


def kaiser_sinc(taps: int = TAPS) -> np.ndarray:
    """Windowed-sinc low-pass filter at a quarter of the rate, sum one.

    Cutoff 0.25 and half width 0.3 of the rate, which are the source's 0.5 / 2 and 0.6 / 2.

    Returns:
      float32 [taps], `taps` even.
    Source: alias_free_torch `kaiser_sinc_filter1d`.
    """
    half = taps // 2
    attenuation = 2.285 * (half - 1) * np.pi * 4 * 0.3 + 7.95
    if attenuation > 50.0:
        beta = 0.1102 * (attenuation - 8.7)
    else:
        beta = 0.5842 * (attenuation - 21.0) ** 0.4 + 0.07886 * (attenuation - 21.0)
    time = np.arange(-half, half) + 0.5
    kernel = np.kaiser(taps, beta) * np.sinc(0.5 * time)
    return (kernel / kernel.sum()).astype(np.float32)


class Snake(nnx.Module):
    """x + sin(alpha x)^2 / beta, one alpha and beta per channel; "snake": beta is alpha.

    `logscale`: the parameters are logarithms. Source: BigVGAN activations.py.
    """

    def __init__(self, channels: int, *, kind: Kind = "snakebeta", logscale: bool = True):
        if kind not in ("snake", "snakebeta"):
            raise ValueError(f"activation is {kind!r}, expected 'snake' or 'snakebeta'")
        init = jnp.zeros if logscale else jnp.ones
        self.alpha = nnx.Param(init((channels,), jnp.float32))
        self.beta = nnx.Param(init((channels,), jnp.float32)) if kind == "snakebeta" else None
        self.logscale = logscale

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """Elementwise, in the dtype of x."""
        alpha = self.alpha[...]
        beta = alpha if self.beta is None else self.beta[...]
        if self.logscale:
            alpha, beta = jnp.exp(alpha), jnp.exp(beta)
        alpha, beta = (v.astype(x_BTC.dtype).reshape(1, 1, -1) for v in (alpha, beta + _GUARD))
        return x_BTC + jnp.square(jnp.sin(x_BTC * alpha)) / beta


class Activation1d(nnx.Module):
    """Upsamples by two, applies `Snake`, low-passes and takes every second sample.

    Even and odd samples of the doubled rate are kept apart, so that each filter is a sum of six
    shifted copies: nothing is interleaved, and no convolution with one channel per group is needed
    (up to hundreds of times slower). Ends repeat the first and the last sample.
    Source: BigVGAN alias_free_activation/torch (ratio 2, 12 taps).
    """

    def __init__(self, channels: int, *, kind: Kind = "snakebeta", logscale: bool = True):
        self.act = Snake(channels, kind=kind, logscale=logscale)
        self.up_filter = Filter(jnp.asarray(kaiser_sinc()))
        self.down_filter = Filter(jnp.asarray(kaiser_sinc()))

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """[B, T, C] -> [B, T, C]."""
        up_K = 2.0 * self.up_filter[...].astype(x_BTC.dtype)
        down_K = self.down_filter[...].astype(x_BTC.dtype)
        x = _extend(x_BTC, x_BTC[:, :1], x_BTC[:, -1:])
        # sample 2t sees x[t - 3 : t + 3], sample 2t + 1 sees x[t - 2 : t + 4]
        even = self.act(_slide(x[:, :-1], up_K[::-1][0::2]))
        odd = self.act(_slide(x[:, 1:], up_K[::-1][1::2]))
        first, last = even[:, :1], odd[:, -1:]
        even, odd = _extend(even, first, last), _extend(odd, first, last)
        # y[t] = sum_k down[k] u[2t + k - 5]
        return _slide(odd[:, :-1], down_K[0::2]) + _slide(even[:, 1:], down_K[1::2])


def _extend(x_BTC: jax.Array, first_B1C: jax.Array, last_B1C: jax.Array) -> jax.Array:
    """Three copies of `first` before and of `last` after: [B, T, C] -> [B, T + 6, C]."""
    return jnp.concatenate([*[first_B1C] * 3, x_BTC, *[last_B1C] * 3], axis=1)


def _slide(x_BTC: jax.Array, filter_K: jax.Array) -> jax.Array:
    """sum_k filter[k] x[t + k]: [B, T + K - 1, C] -> [B, T, C]."""
    count = x_BTC.shape[1] - filter_K.shape[0] + 1
    return sum(x_BTC[:, k : k + count] * filter_K[k] for k in range(filter_K.shape[0]))
