"""Forms that XLA:CPU computes fast; `kernels.dispatch` reads them where they are used."""

from foley_jax.kernels.cpu import (
    attention,
    conv,
    conv3d,
    dense,
    forms,
    gradients,
    strided,
    upsampled,
)

__all__ = ["attention", "conv", "conv3d", "dense", "forms", "gradients", "strided", "upsampled"]
