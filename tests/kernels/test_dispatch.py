"""Every model differentiates forwards; forms are chosen in one place, and can be turned off."""

from pathlib import Path
import re

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import foley_jax
from foley_jax.diff_foley.models import alignment, autoencoder, cavp, unet
from foley_jax.kernels import dispatch
from foley_jax.mm_diffusion.models import coupled_unet

PACKAGE = Path(foley_jax.__file__).parent
TRUNK = tiny.TRUNK | {"attention_downsamples": (1,)}


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def _unet():
    context = _normal(1, 8, 6, seed=1)
    build = lambda rngs: unet.UNet(**TRUNK, num_res_blocks=1, rngs=rngs)  # noqa: E731
    return build, lambda model, x: model(x, jnp.ones(1), context), _normal(1, 4, 8, 4)


def _classifier():
    features = _normal(1, 8, 6, seed=1)
    build = lambda rngs: alignment.AlignmentClassifier(**TRUNK, rngs=rngs)  # noqa: E731
    return build, lambda model, x: model(x, jnp.ones(1), features), _normal(1, 4, 8, 4)


def _autoencoder():
    fields = tiny.AUTOENCODER | {"ch_mult": (1, 2), "attention": True}
    build = lambda rngs: autoencoder.AutoencoderKL(**fields, rngs=rngs)  # noqa: E731
    return build, lambda model, x: model.decode(model.encode(x)[0]), _normal(1, 8, 8, 3)


def _coupled():
    fields = {"model_channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1, "num_frames": 4}
    fields |= {"cross_attention_downsamples": (2,), "cross_attention_windows": (2,)}
    fields |= {"video_attention_downsamples": (2,), "head_channels": 16}
    build = lambda rngs: coupled_unet.CoupledUNet(**fields, rngs=rngs)  # noqa: E731
    audio = _normal(1, 256, 1, seed=1)

    def call(model, x):
        return model(x, audio, jnp.ones(1), jnp.zeros(model.num_shifts, jnp.int32))

    return build, call, _normal(1, 4, 8, 8, 3)


def _cavp():
    fields = {"embed_dim": 16, "video": {"depths": (1, 1, 1, 1), "width": 4}}
    build = lambda rngs: cavp.Cavp(**fields, rngs=rngs)  # noqa: E731
    return build, lambda model, x: model.encode_video(x), _normal(1, 2, 32, 32, 3)


def _function(network):
    """A network as a function of its weights and input, with a point and a direction for both."""
    build, call, x = network()
    graph, params, rest = nnx.split(filled.module(build), nnx.Param, ...)
    params = nnx.to_pure_dict(params)
    direction = jax.tree.map(lambda leaf: 0.1 * _normal(*leaf.shape, seed=1), (params, x))

    def fn(params, x):
        outputs = call(nnx.merge(graph, params, rest), x)
        return sum(jnp.sin(y.astype(jnp.float32)).sum() for y in jax.tree.leaves(outputs))

    return fn, (params, x), direction


NETWORKS = [_unet, _classifier, _autoencoder, _coupled, _cavp]


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS, ids=lambda fn: fn.__name__[1:])
def test_forward_mode_through_a_network_equals_finite_differences(network):
    fn, point, direction = _function(network)
    with dispatch.plain_forms():
        run = filled.jit(lambda point: jax.jvp(fn, point, direction))
        _, found = run(point)
    step = 1e-3
    ahead, behind = (
        run(jax.tree.map(lambda a, b, s=s: a + s * step * b, point, direction))[0] for s in (1, -1)
    )
    assert abs(found) > 0.01
    np.testing.assert_allclose(found, (ahead - behind) / (2 * step), rtol=2e-2)  # of float32 sums


def _operations():
    image, wide = _normal(1, 4, 6, 8), _normal(1, 32, 4, 8)
    yield "conv2d", lambda x, k: dispatch.conv2d(x, k, padding=((1, 1),) * 2), image, (3, 3, 8, 4)
    yield "conv3d", dispatch.conv3d, image[None], (3, 3, 3, 8, 4)
    yield "temporal_conv", dispatch.temporal_conv, image, (3, 8, 4)
    yield "upsampled_conv", dispatch.upsampled_conv, image, (3, 3, 8, 4)
    yield "products", lambda x, k: dispatch.matmul(x, k, gradients_as_products=True), image, (8, 4)
    yield "attention", lambda x, k: dispatch.attention(x, k, x * k), wide, wide.shape


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fn", "x", "shape"), [pytest.param(*rest, id=name) for name, *rest in _operations()]
)
def test_operations_differentiate_forwards_by_themselves(fn, x, shape):
    """Beside forms that have only gradients of their own: reverse mode uses these."""
    args = (x, _normal(*shape, seed=1))
    direction = (_normal(*x.shape, seed=2), _normal(*shape, seed=3))
    y, forwards = filled.jit(lambda: jax.jvp(fn, args, direction))()
    weights = _normal(*y.shape, seed=4)
    reverse = jax.jit(jax.grad(lambda args: jnp.vdot(weights, fn(*args))))
    assert "custom_vjp" in str(jax.make_jaxpr(lambda args: fn(*args))(args))
    products = jax.tree.map(jnp.vdot, reverse(args), direction)
    np.testing.assert_allclose(jnp.vdot(weights, forwards), sum(products), rtol=1e-4)


def test_what_was_jitted_before_is_differentiated_forwards_in_plain_forms():
    x, kernel = _normal(1, 4, 6, 3), _normal(3, 3, 3, 4)
    convolve = lambda x: dispatch.conv2d(x, kernel, padding=((1, 1), (1, 1)))  # noqa: E731
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(jax.jit(convolve), (x,), (x,))
    with dispatch.plain_forms():
        _, found = jax.jvp(jax.jit(lambda x: convolve(x)), (x,), (x,))
    np.testing.assert_allclose(found, convolve(x), rtol=1e-5, atol=1e-6)  # it is linear


def test_no_layer_and_no_model_names_a_platform():
    words = re.compile(r"\b(CPUs?|TPUs?|GPUs?|cuda|cudnn|pallas|XLA|on_one_cpu|on_tpu)\b", re.I)
    files = [*PACKAGE.glob("layers/*.py"), *PACKAGE.glob("*/models/*.py")]
    found = [
        f"{file.name}: {line.strip()}"
        for file in [*files, *PACKAGE.glob("vocoders/*.py")]
        for line in file.read_text().splitlines()
        # the written-out attention is called so in configs
        if words.search(line) and '"implementation": "xla"' not in line
    ]
    assert len(files) > 25 and not found
