"""Forms for NVIDIA GPUs; `kernels.dispatch` reads them where they are used."""

from foley_jax.kernels.gpu import attention, norm

__all__ = ["attention", "norm"]
