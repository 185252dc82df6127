"""The convolution of CPUs, and its gradients, are the library's."""

import functools

import filled
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.kernels.cpu import columns, conv, gradients
from foley_jax.runtime import flops
from foley_jax.runtime import mesh as mesh_lib


def _data(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes]


def _library(x, kernel, stride, padding):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _gradients(fn, x, kernel):
    def both(x, kernel):
        out, vjp = jax.vjp(fn, x, kernel)
        return out, *vjp(jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape))

    return filled.jit(both)(x, kernel)


@pytest.mark.parametrize("size", [(6, 8), (7, 4)])
@pytest.mark.parametrize("kernel_size", [(3, 3), (5, 3), (3, 1), (1, 3), (1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("few", [True, False], ids=["few pixels", "many"])
def test_forms_of_convolution_equal_the_library(size, kernel_size, stride, few, monkeypatch):
    monkeypatch.setattr(columns, "_PIXELS", 96 if few else 1)  # of sizes (6, 8), just as many
    x, kernel = _data((2, *size, 3), (*kernel_size, 3, 4))
    about = {"stride": stride, "padding": tuple((n // 2, n // 2) for n in kernel_size)}
    ours = _gradients(lambda x, k: conv.conv2d(x, k, *about.values()), x, kernel)
    library = functools.partial(_library, **about)
    for got, want in zip(ours, _gradients(library, x, kernel)):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)  # sums of ~100 products


def test_padding_that_changes_the_size():
    x, kernel = _data((1, 6, 8, 3), (3, 3, 3, 4))
    padding = ((0, 1), (0, 1))
    got = conv.conv2d(x, kernel, 2, padding)
    np.testing.assert_allclose(got, _library(x, kernel, 2, padding), rtol=1e-6)


def test_three_frames_and_gradients_equal_the_library():
    x, kernel = _data((2, 5, 6, 3), (3, 3, 4))
    library = functools.partial(_library, stride=1, padding=((1, 1), (0, 0)))
    ours = _gradients(gradients.temporal_conv3, x, kernel)
    theirs = _gradients(lambda x, k: library(x, k[:, None]), x, kernel)
    for got, want in zip(ours, theirs):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_other_platforms_keep_the_library():
    """Their programs have one plain convolution, of the size that was asked for."""
    x, kernel = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 6, 8, 3), (3, 3, 3, 4)))
    traced = jax.jit(lambda x, k: conv.conv2d(x, k, 1, ((1, 1), (1, 1)))).trace(x, kernel)
    texts = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu", "cuda")}
    wanted = "pad = [[1, 1], [1, 1]]"
    for platform, text in texts.items():
        assert text.count("stablehlo.convolution") == 1
        assert (wanted in text) == (platform != "cpu"), platform


@pytest.mark.parametrize("form", ["conv2d", "temporal_conv3"])
def test_gradients_do_not_count_the_forward_pass_again(form):
    fn, kernel = {
        "conv2d": (lambda *a: conv.conv2d(*a, 1, ((1, 1), (1, 1))), (3, 3, 5, 7)),
        "temporal_conv3": (gradients.temporal_conv3, (3, 5, 7)),
    }[form]
    args = [jnp.ones(shape, jnp.float32) for shape in ((2, 4, 6, 5), kernel)]
    gradient = jax.grad(lambda *a: fn(*a).sum(), (0, 1))
    # forward, input's, kernel's
    assert 2.9 * flops.count(fn, *args) <= flops.count(gradient, *args)
    assert flops.count(gradient, *args) <= 3.1 * flops.count(fn, *args)


def _operations(fn, *args):
    text = jax.jit(fn).lower(*args).as_text()
    return [text.count(f"stablehlo.{name}") for name in ("dot_general", "convolution")]


def test_gradients_over_few_pixels_are_products():
    run = functools.partial(conv.gradients, stride=1, padding=((1, 1), (1, 1)))
    x, kernel, dy = _data((2, 16, 16, 3), (3, 3, 3, 4), (2, 16, 16, 4))
    assert _operations(run, x, kernel, dy) == [2, 0]
    one_more = _data((2, 16, 17, 3), (3, 3, 3, 4), (2, 16, 17, 4))
    assert _operations(run, *one_more) == [0, 2]
    half = [a.astype(jnp.bfloat16) for a in (x, kernel, dy)]
    assert _operations(run, *half) == [0, 2]
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:2])
    with jax.set_mesh(mesh):
        assert _operations(run, x, kernel, dy) == [0, 2]
