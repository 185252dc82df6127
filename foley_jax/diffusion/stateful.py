"""Denoisers that keep something from one evaluation to the next.

A sampler calls `of` on the denoiser it is given and carries the memory through its loop; a plain
denoiser has an empty one.
B batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from foley_jax.diffusion import gaussian


class Denoiser(NamedTuple):
    """A denoiser with a memory.

    Attributes:
      evaluate: (x, float32 model times [B], memory) -> (prediction, memory), shapes unchanged.
      start: the memory before the first evaluation, a pytree of arrays.
    """

    evaluate: Callable[[gaussian.Tree, jax.Array, Any], tuple[gaussian.Tree, Any]]
    start: Any


def of(denoise_fn: gaussian.DenoiseFn | Denoiser) -> Denoiser:
    """`denoise_fn` as a denoiser with a memory."""
    if isinstance(denoise_fn, Denoiser):
        return denoise_fn
    return Denoiser(lambda x, t_B, memory: (denoise_fn(x, t_B), memory), ())
