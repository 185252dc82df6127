"""The attention kernel for TPUs, interpreted on the CPU: numbers of the plain form, who gets it."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.kernels import dispatch
from foley_jax.kernels.tpu import attention as fused_attention
from foley_jax.runtime import flops
from foley_jax.runtime import mesh as mesh_lib

SHAPE = (4, 256, 3, 40)  # B, T, N, D
KEYS = 384


def qkv(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    keys = (SHAPE[0], KEYS, *SHAPE[2:])
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in (SHAPE, keys, keys)]


def run(form, q, k, v):
    def loss(q, k, v):
        y = form(q, k, v)
        return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    return jax.device_get((y, *gradients))


def interpreted(q, k, v):
    return fused_attention.attention(q, k, v, interpret=True)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [0, 4])
@pytest.mark.parametrize("tile", [128, 256])
def test_numbers_and_gradients_of_the_plain_form(devices, tile, monkeypatch):
    monkeypatch.setattr(fused_attention, "MOST_TILE", tile)
    wanted = run(functools.partial(dispatch.attention, implementation="xla"), *qkv())
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:devices]) if devices else None
    with jax.set_mesh(mesh) if devices else contextlib.nullcontext():
        made = run(interpreted, *qkv())
    for a, b in zip(made, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6)


def test_half_precision_is_near_float32():
    wanted = run(functools.partial(dispatch.attention, implementation="xla"), *qkv())
    for a, b in zip(run(interpreted, *qkv(jnp.bfloat16)), wanted, strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(np.float32), b, atol=0.02 * np.abs(b).max())


def test_which_shapes_it_takes():
    def fits(*shape, keys=None):
        k = jax.ShapeDtypeStruct((shape[0], keys or shape[1], *shape[2:]), jnp.float32)
        return fused_attention.fits(jax.ShapeDtypeStruct(shape, jnp.float32), k)

    assert fits(1, 1024, 8, 40) and fits(1, 256, 8, 80) and fits(1, 1024, 4, 64)
    assert not fits(1, 64, 8, 160)  # no multiple of a tile
    assert not fits(1, 256, 4, 160)  # logits are smaller than queries and result
    assert not fits(1, 1024, 8, 40, keys=32)
    assert not fits(1, 4096, 8, 40)  # the keys do not stay on the chip
    with jax.set_mesh(mesh_lib.make_mesh(devices=jax.devices()[:4])):
        assert fits(8, 1024, 8, 40) and not fits(2, 1024, 8, 40)


def test_every_logit_is_made_once_forward_and_once_backward():
    q, k, v = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in qkv())
    product = 2 * SHAPE[0] * SHAPE[2] * SHAPE[1] * KEYS * SHAPE[3]
    assert flops.count(interpreted, q, k, v) == 2 * product
    gradient = jax.grad(lambda *x: interpreted(*x).sum(), (0, 1, 2))
    assert flops.count(gradient, q, k, v) == (2 + 5) * product
