"""The fastest matrix product of this device: what a share of its peak is a share of."""

import time

import jax
import jax.numpy as jnp

SIDES = {"cpu": (512, 1024), "gpu": (4096, 8192, 16384), "tpu": (4096, 8192, 16384)}
PRODUCTS = {"cpu": 1, "gpu": 16, "tpu": 16}  # of one call, one after another
CALLS = 30


def matmul_flops(dtype: str, *, quick: bool = False) -> float:
    """FLOP/s of square products in `dtype`, of the side and the call that are best.

    Args:
      dtype: of the factors; sums are float32 inside.
      quick: only the smallest side.
    """
    backend = jax.default_backend()
    sides = SIDES.get(backend, SIDES["cpu"])
    count = PRODUCTS.get(backend, 1)
    return max(_rate(side, count, dtype) for side in (sides[:1] if quick else sides))


def _rate(side: int, count: int, dtype: str) -> float:
    """The rate of one side's fastest call: what slows others down is no limit of the device."""

    def products(x: jax.Array, y: jax.Array) -> jax.Array:
        # every product depends on the one before it
        return jax.lax.fori_loop(0, count, lambda _, x: jnp.matmul(x, y), x)

    x = jnp.full((side, side), 1e-3, dtype)
    run = jax.jit(products)
    jax.block_until_ready(run(x, x))
    best = float("inf")
    for _ in range(CALLS):
        began = time.perf_counter()
        jax.block_until_ready(run(x, x))
        best = min(best, time.perf_counter() - began)
    return 2.0 * side**3 * count / best
