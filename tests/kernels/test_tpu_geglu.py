"""The feed-forward kernel for TPUs, interpreted on the CPU: the layer's numbers, who gets it."""

import contextlib

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.kernels.tpu import geglu
from foley_jax.layers import transformer
from foley_jax.runtime import flops
from foley_jax.runtime import mesh as mesh_lib

CHANNELS = 24
ROWS = (4, 16, 32)  # B and space: two tiles of 256 a device of four


def inputs(dtype=jnp.float32):
    layer = transformer.GatedFeedForward(CHANNELS, dtype=dtype, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((*ROWS, CHANNELS))
    return jnp.asarray(x, dtype), layer


def run(form, x, layer):
    graph, state = nnx.split(layer)

    def loss(state, x):
        y = form(nnx.merge(graph, state), x)
        return jnp.sum(jnp.sin(3 * y.astype(jnp.float32))), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(state, x)
    return jax.tree.leaves(jax.device_get((y, nnx.to_pure_dict(gradients[0]), gradients[1])))


def interpreted(layer, x):
    return geglu.feed_forward(x, layer._weights(), interpret=True)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [0, 4])
def test_numbers_and_gradients_of_the_plain_form(devices):
    x, layer = inputs()
    wanted = run(lambda layer, x: layer(x), x, layer)
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:devices]) if devices else None
    with jax.set_mesh(mesh) if devices else contextlib.nullcontext():
        made = run(interpreted, x, layer)
    assert len(made) == 6  # result, two kernels and biases, input
    for a, b in zip(made, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_half_precision_is_near_float32():
    x, layer = inputs()
    wanted = run(lambda layer, x: layer(x), x, layer)
    layer.proj_in.dtype = layer.proj_out.dtype = jnp.bfloat16
    made = run(interpreted, x.astype(jnp.bfloat16), layer)
    for a, b in zip(made, wanted, strict=True):
        np.testing.assert_allclose(a.astype(np.float32), b, atol=0.02 * np.abs(b).max())


def test_which_shapes_it_takes():
    def fits(*shape, dtype=jnp.bfloat16):
        return geglu.fits(jax.ShapeDtypeStruct(shape, dtype), 4 * shape[-1])

    assert fits(1, 16, 64, 320) and fits(2, 8, 32, 640)
    assert not fits(1, 4, 16, 1280)  # the weights do not stay on the chip
    assert not fits(1, 3, 5, 320)  # no whole tile
    assert not fits(1, 16, 64, 320, dtype=jnp.float32)
    with jax.set_mesh(mesh_lib.make_mesh(devices=jax.devices()[:4])):
        assert fits(4, 16, 64, 320) and not fits(2, 16, 64, 320)


def test_rows_that_fill_no_tile_are_named():
    x, layer = inputs()
    with pytest.raises(ValueError, match="1920 rows are no multiple of a tile's 256"):
        interpreted(layer, x[:, :15])


def test_backward_makes_inner_activations_once_more_and_no_result():
    x, layer = inputs()
    weights = layer._weights()
    product = 2 * x.size * 4 * CHANNELS
    form = lambda x, w: geglu.feed_forward(x, w, interpret=True)  # noqa: E731
    assert flops.count(form, x, weights) == 3 * product
    gradient = jax.grad(lambda *a: form(*a).sum(), (0, 1))
    assert flops.count(gradient, x, weights) == (3 + 2 + 6) * product
