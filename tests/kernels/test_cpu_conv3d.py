"""The image form of 3x3x3 convolutions gives the library's numbers and gradients."""

import filled
import jax
import numpy as np
import pytest

from foley_jax.kernels import plain
from foley_jax.kernels.cpu import conv3d
from foley_jax.runtime import flops


def _arrays(shape, out):
    rng = np.random.default_rng(0)
    sizes = (shape, (3, 3, 3, shape[-1], out), (*shape[:-1], out))
    return [rng.standard_normal(size).astype(np.float32) for size in sizes]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "out"), [((2, 5, 6, 8, 4), 3), ((1, 1, 4, 4, 3), 2), ((1, 16, 32, 32, 32), 3)]
)
def test_values_and_gradients_are_the_librarys(shape, out):
    x, kernel, dy = _arrays(shape, out)

    def gradients(conv, x, kernel, dy):
        y, vjp = jax.vjp(conv, x, kernel)
        return y, *vjp(dy)

    got, want = (
        filled.jit(lambda *args, conv=conv: gradients(conv, *args))(x, kernel, dy)
        for conv in (conv3d.conv3d, plain.conv3d)
    )
    for ours, librarys in zip(got, want, strict=True):
        scale = np.abs(librarys).max()
        np.testing.assert_allclose(ours / scale, librarys / scale, atol=3e-6)


def test_gradients_do_not_count_the_forward_pass_again():
    x, kernel, _ = _arrays((1, 4, 6, 6, 4), 3)
    forward = flops.count(conv3d.conv3d, x, kernel)
    gradient = jax.grad(lambda *args: conv3d.conv3d(*args).sum(), (0, 1))
    assert 2.9 * forward <= flops.count(gradient, x, kernel) <= 3.1 * forward


def test_a_cpu_computes_images_and_others_the_library():
    x, kernel, _ = _arrays((1, 4, 8, 8, 4), 3)
    for platform, dimensions in (("cpu", 2), ("tpu", 3)):
        traced = jax.jit(conv3d.conv3d).trace(x, kernel)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        found = [
            len(line.split("stride = [")[1].split("]")[0].split(","))
            for line in text.splitlines()
            if "stablehlo.convolution" in line
        ]
        assert found == [dimensions], platform
