"""The forms that pay on large images give the library's numbers and gradients."""

import filled
from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.kernels import dispatch, plain
from foley_jax.kernels.cpu import conv, dense, forms, gradients, strided, upsampled, winograd
from foley_jax.runtime import mesh as mesh_lib

BOTH = ((1, 1), (1, 1))


@pytest.fixture
def always(monkeypatch):
    """They pay for small images, too, which are taken in pieces."""
    for module in (strided, winograd, dense):
        monkeypatch.setattr(module, "_CHANNELS", 1)
    for module in (strided, winograd):
        monkeypatch.setattr(module, "_PIXELS", 1)
    monkeypatch.setattr(winograd, "_WASTE", 3.0)
    monkeypatch.setattr(dense, "_ROWS", 1)
    monkeypatch.setattr(forms, "_PIECE", 2**10)


def _data(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes]


def _library(x, kernel, stride=1, padding=BOTH):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _gradients(fn, *args):
    def both(*args):
        out, vjp = jax.vjp(fn, *args)
        return out, *vjp(jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape))

    return filled.jit(both)(*args)


def _count(fn, *args, of):
    """How often the program for CPUs has an operation."""
    text = jax.jit(fn).trace(*args).lower(lowering_platforms=("cpu",)).as_text()
    return text.count(f"stablehlo.{of}")


@pytest.mark.parametrize("width", [3, 4, 7, 8, 14])
def test_winograd_equals_the_library(always, width):
    x, kernel = _data((4, 5, width, 6), (3, 3, 6, 7))
    convolve = lambda x, k: conv.conv2d(x, k, 1, BOTH)  # noqa: E731
    assert _count(convolve, x, kernel, of="convolution") == 6
    for got, want in zip(_gradients(convolve, x, kernel), _gradients(_library, x, kernel)):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=3e-5)  # sums of ~50 products


def test_winograd_rounds_three_times_as_much_as_a_plain_sum():
    x, kernel = _data((1, 8, 32, 256), (3, 3, 256, 32))
    exact = filled.jit(_library)(x, kernel)  # of itself 3e-7 of a standard deviation
    error = winograd.conv3x3(x, kernel) - exact
    assert jnp.sqrt(jnp.square(error).mean()) < 1.5e-6 * exact.std()


@pytest.mark.parametrize("size", [(2, 4), (6, 8)])
def test_maxima_by_phases_are_the_librarys(size):
    (x,) = _data((3, *size, 5))
    x = jnp.maximum(x, 0.0)
    want = nnx.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    np.testing.assert_array_equal(strided.max_pool(x), want)


@pytest.mark.parametrize("rows", [(1, 1), (0, 1), (1, 0)])
@pytest.mark.parametrize("columns", [(1, 1), (0, 1), (1, 0)])
def test_a_stride_of_two_by_phases_equals_the_library(always, rows, columns):
    x, kernel = _data((4, 6, 8, 5), (3, 3, 5, 7))
    convolve = lambda x, k: conv.conv2d(x, k, 2, (rows, columns))  # noqa: E731
    library = lambda x, k: _library(x, k, 2, (rows, columns))  # noqa: E731
    assert _count(convolve, x, kernel, of="convolution") == 4
    for got, want in zip(_gradients(convolve, x, kernel), _gradients(library, x, kernel)):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape,padding", [((2, 5, 8, 4), BOTH), ((2, 6, 8, 4), ((0, 0), (1, 1)))])
def test_what_phases_cannot_do_stays_with_the_library(always, shape, padding):
    x, kernel = _data(shape, (3, 3, 4, 4))
    got = conv.conv2d(x, kernel, 2, padding)
    np.testing.assert_array_equal(got, _library(x, kernel, 2, padding))


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1)])
def test_a_doubled_image_is_convolved_before_it_is_doubled(always, size):
    x, kernel = _data((2, *size, 5), (3, 3, 5, 7))
    two_steps = lambda x, k: _library(plain.nearest(x), k)  # noqa: E731
    # four kernels of 2x2, side by side
    assert f"tensor<2x2x5x{4 * 7}xf32>" in jax.jit(upsampled.conv3x3).lower(x, kernel).as_text()
    for got, want in zip(
        _gradients(upsampled.conv3x3, x, kernel), _gradients(two_steps, x, kernel)
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_dense_maps_as_convolutions_equal_products(always):
    x, kernel = _data((2, 3, 4, 6), (6, 5))
    assert _count(dispatch.matmul, x, kernel, of="convolution") == 1
    for got, want in zip(_gradients(dispatch.matmul, x, kernel), _gradients(jnp.matmul, x, kernel)):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [(3, 4), (16, 4)])
def test_three_frames_wide_and_narrow(always, channels):
    x, kernel = _data((2, 5, 6, channels[0]), (3, *channels))
    library = lambda x, k: _library(x, k[:, None], 1, ((1, 1), (0, 0)))  # noqa: E731
    for got, want in zip(
        _gradients(gradients.temporal_conv3, x, kernel), _gradients(library, x, kernel)
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_several_devices_keep_what_can_be_divided(always):
    """Pieces would be cut from images that lie on different devices."""
    x, kernel = _data((4, 6, 8, 5), (3, 3, 5, 7))
    calls = (
        lambda x, k: conv.conv2d(x, k, 1, BOTH),
        lambda x, k: conv.conv2d(x, k, 2, BOTH),
        upsampled.conv3x3,
    )
    for fn in calls:
        assert _count(fn, x, kernel, of="while") == 1 or fn is upsampled.conv3x3
        with jax.set_mesh(mesh_lib.make_mesh(devices=jax.devices()[:2])):
            assert _count(fn, x, kernel, of="while") == 0
            assert _count(fn, x, kernel, of="convolution") == 1


@pytest.mark.parametrize("batch,size", [(6, 2), (7, 7), (5, 1)])
def test_pieces_are_of_one_size_and_in_order(monkeypatch, batch, size):
    monkeypatch.setattr(forms, "_PIECE", size * 4 * 3 * 4)  # bytes of as many images
    seen = []

    def fn(x):
        seen.append(x.shape[0])
        return x[..., :1] * 2

    (x,) = _data((batch, 2, 2, 3))
    np.testing.assert_array_equal(forms.in_pieces(fn, x), x[..., :1] * 2)
    assert seen == [size]
