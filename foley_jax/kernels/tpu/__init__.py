"""Kernels for TPUs; `kernels.dispatch` reads them where they are used."""

from foley_jax.kernels.tpu import attention, geglu, splash

__all__ = ["attention", "geglu", "splash"]
