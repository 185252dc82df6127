"""Attention in pieces is attention."""

import functools

import filled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.kernels import dispatch, plain
from foley_jax.kernels.cpu import attention as cpu_attention
from foley_jax.runtime import mesh as mesh_lib


def _data(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes]


def _loops(text):
    return text.count("stablehlo.while")


@pytest.fixture
def small_pieces(monkeypatch):
    for name, value in (("_LOGITS", 640), ("_WORTH_IT", 1), ("_HEAD", 1)):
        monkeypatch.setattr(cpu_attention, name, value)


@pytest.mark.parametrize("queries", [64, 50], ids=["pieces of 16", "pieces of 25"])
def test_equals_attention_with_its_gradients(small_pieces, queries):
    qkv = _data((2, queries, 3, 8), (2, 25, 3, 8), (2, 25, 3, 8))
    qkv[0] = 3.0 * qkv[0]  # weights far from equal

    def run(fn):
        def both(*qkv):
            y, vjp = jax.vjp(fn, *qkv)
            return y, *vjp(jnp.cos(y))

        return filled.jit(both).trace(*qkv).lower()

    ours, written_out = run(cpu_attention.attention), run(plain.attention)
    assert _loops(ours.as_text()) == 4 and _loops(written_out.as_text()) == 0  # two each way
    for got, want in zip(ours.compile()(*qkv), written_out.compile()(*qkv)):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_heads_side_by_side_equal_attention_with_its_gradients():
    qkv = _data((2, 6, 3, 8), (2, 5, 3, 8), (2, 5, 3, 8))

    def both(fn, *qkv):
        y, vjp = jax.vjp(fn, *qkv)
        return y, *vjp(jnp.cos(y))

    ours = filled.jit(functools.partial(both, cpu_attention.attention))(*qkv)
    written_out = filled.jit(functools.partial(both, plain.attention))(*qkv)
    for got, want in zip(ours, written_out):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_half_precision_keeps_its_type(small_pieces):
    qkv = [x.astype(jnp.bfloat16) for x in _data(*[(1, 32, 2, 8)] * 3)]
    got = filled.jit(cpu_attention.attention)(*qkv)
    assert got.dtype == jnp.bfloat16
    want = plain.attention(*qkv).astype(jnp.float32)
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=2e-2)  # 8 bits


def _text(qkv):
    return jax.jit(dispatch.attention).lower(*qkv).as_text()


def test_heads_of_few_tokens_are_not_taken_apart():
    shape = jax.ShapeDtypeStruct((2**14, 16, 1, 8), jnp.float32)
    assert _loops(_text([shape] * 3)) == 0


def test_a_prime_number_of_queries_is_not_taken_apart(small_pieces):
    shape = jax.ShapeDtypeStruct((1, 61, 1, 8), jnp.float32)
    assert _loops(_text([shape] * 3)) == 0


def test_a_batch_split_over_devices_is_left_alone(small_pieces):
    shape = jax.ShapeDtypeStruct((8, 32, 2, 8), jnp.float32)
    assert _loops(_text([shape] * 3)) == 2
    with jax.set_mesh(mesh_lib.make_mesh()):
        assert _loops(_text([shape] * 3)) == 0
