"""Forms for NVIDIA GPUs; `kernels.dispatch` reads them where they are used."""

from foley_jax.kernels.gpu import attention, conv, norm

__all__ = ["attention", "conv", "norm"]
