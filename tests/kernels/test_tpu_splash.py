"""Attention on TPUs, interpreted on the CPU: the numbers of the plain form, and who gets it."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.kernels import dispatch
from foley_jax.kernels.tpu import splash
from foley_jax.runtime import flops, partition
from foley_jax.runtime import mesh as mesh_lib

SHAPE = (4, 512, 1, 40)  # B, T, N, D


def qkv(shape=SHAPE, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for _ in range(3)]


def run(form, q, k, v):
    def loss(q, k, v):
        y = form(q, k, v)
        return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    return jax.device_get((y, *gradients))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [0, 4])
def test_numbers_and_gradients_of_the_plain_form(devices):
    wanted = run(functools.partial(dispatch.attention, implementation="xla"), *qkv())
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:devices]) if devices else None
    with jax.set_mesh(mesh) if devices else contextlib.nullcontext():
        made = run(functools.partial(splash.attention, interpret=True), *qkv())
    for a, b in zip(made, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_which_shapes_it_takes():
    def fits(*shape, keys=None):
        k = jax.ShapeDtypeStruct((shape[0], keys or shape[1], *shape[2:]), jnp.float32)
        return splash.fits(jax.ShapeDtypeStruct(shape, jnp.float32), k)

    assert fits(1, 1024, 8, 40) and fits(1, 1024, 1, 512)
    assert not fits(1, 64, 8, 160)  # short
    assert not fits(1, 1024, 8, 160)  # the kernel wants up to 128, or multiples of it
    assert not fits(1, 1000, 8, 40) and not fits(1, 1024, 8, 40, keys=32)
    with jax.set_mesh(mesh_lib.make_mesh(devices=jax.devices()[:4])):
        assert fits(8, 1024, 8, 40) and not fits(2, 1024, 8, 40)


def test_on_this_cpu_auto_is_the_plain_form():
    q, k, v = qkv((1, 512, 1, 8))
    assert not partition.on_tpu()
    text = str(jax.make_jaxpr(dispatch.attention)(q, k, v))
    assert "pallas_call" not in text


def test_flops_of_a_kernel_count_its_grid():
    q, k, v = (jax.ShapeDtypeStruct(SHAPE, jnp.float32) for _ in range(3))
    b, t, n, d = SHAPE
    made = flops.count(lambda *x: dispatch.attention(*x, implementation="flash"), q, k, v)
    assert made == 2 * 2 * b * n * t * t * d
