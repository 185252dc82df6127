"""Who gets cuDNN's attention; its numbers take a GPU (tests/device_goldens.py)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.kernels import dispatch, plain
from foley_jax.kernels.gpu import attention
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.runtime import partition


@pytest.fixture
def on_gpu(monkeypatch):
    """What is traced is meant for GPUs, and cuDNN is there."""
    monkeypatch.setattr(partition, "on_gpu", lambda: True)
    monkeypatch.setattr(partition, "on_cpu", lambda: False)
    monkeypatch.setattr(attention, "installed", lambda: True)


def best(shape, dtype=jnp.bfloat16, keys=None):
    q = jax.ShapeDtypeStruct(shape, dtype)
    k = jax.ShapeDtypeStruct((shape[0], keys or shape[1], *shape[2:]), dtype)
    return dispatch._best(q, k, k)


@pytest.mark.parametrize(
    ("shape", "dtype", "wanted"),
    [
        ((2, 1024, 8, 40), jnp.bfloat16, "cudnn"),
        ((2, 1024, 8, 40), jnp.float16, "cudnn"),
        ((2, 1024, 8, 40), jnp.float32, "xla"),
        ((2, 64, 8, 160), jnp.bfloat16, "xla"),
        ((2, 64, 8, 36), jnp.bfloat16, "xla"),
        ((2, 16, 8, 64), jnp.bfloat16, "xla"),
        ((2**14, 64, 4, 64), jnp.bfloat16, "xla"),
    ],
)
def test_half_precision_narrow_heads_and_many_queries_get_it(on_gpu, shape, dtype, wanted):
    assert best(shape, dtype) == wanted


def test_few_keys_get_it_and_plain_forms_do_not(on_gpu):
    assert best((2, 1024, 8, 40), keys=32) == "cudnn"
    with dispatch.plain_forms():
        assert best((2, 1024, 8, 40)) == "xla"


def test_an_example_is_not_cut(on_gpu):
    with jax.set_mesh(mesh_lib.make_mesh(devices=jax.devices()[:4])):
        assert best((8, 1024, 8, 40)) == "cudnn"
        assert best((6, 1024, 8, 40)) == "xla"


def test_without_cudnn_nothing_asks_for_it(on_gpu, monkeypatch):
    monkeypatch.setattr(attention, "installed", lambda: False)
    assert best((2, 1024, 8, 40)) == "xla"


def test_cpus_do_not_get_it():
    assert best((2, 1024, 8, 40)) == "cpu"


@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (8, 5), (7, 6)])
def test_odd_lengths_have_the_numbers_and_gradients_of_plain_attention(monkeypatch, queries, keys):
    """JAX's own form of the call in cuDNN's place."""
    xla = functools.partial(jax.nn.dot_product_attention, implementation="xla")
    monkeypatch.setattr(attention, "_cudnn", xla)
    rng = jax.random.split(jax.random.key(0), 4)
    shapes = [(2, length, 3, 8) for length in (queries, keys, keys, queries)]
    *qkv, weight = (jax.random.normal(key, shape) for key, shape in zip(rng, shapes))

    def both(fn):
        return fn(*qkv), jax.grad(lambda *qkv: (fn(*qkv) * weight).sum(), (0, 1, 2))(*qkv)

    got, wanted = both(attention.attention), both(plain.attention)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), got, wanted)
