"""Who gets cuDNN's attention; its numbers take a GPU (tests/device_goldens.py)."""

import jax
import jax.numpy as jnp
import pytest

from foley_jax.kernels import dispatch
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
