"""Convolutions, dense layers and resampling give torch's numbers."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from foley_jax.kernels import patches, plain
from foley_jax.layers import conv, dense

ATOL = 1e-5  # float32 sums of a few hundred products


def _torch_conv(layer, x, stride, padding):
    """torch's answer for our parameters, channels last."""
    weight = torch.tensor(np.asarray(layer.kernel[...])).permute(3, 2, 0, 1)
    out = torch.nn.functional.conv2d(
        torch.tensor(x).permute(0, 3, 1, 2),
        weight,
        torch.tensor(np.asarray(layer.bias[...])),
        stride=stride,
        padding=padding,
    )
    return out.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("kernel_size,stride", [((3, 3), 1), ((3, 3), 2), ((1, 1), 1)])
def test_convolution_pads_as_torch(kernel_size, stride):
    x = np.random.default_rng(0).standard_normal((2, 6, 8, 3)).astype(np.float32)
    layer = conv.Conv2d(3, 5, kernel_size, stride=stride, rngs=nnx.Rngs(0))
    want = _torch_conv(layer, x, stride, (kernel_size[0] // 2, kernel_size[1] // 2))
    got = layer(x)
    assert got.shape == (2, 6 // stride, 8 // stride, 5)
    np.testing.assert_allclose(got, want, atol=ATOL)


def test_gradients_of_a_convolution_are_torchs():
    x = np.random.default_rng(1).standard_normal((2, 4, 6, 3)).astype(np.float32)
    layer = conv.Conv2d(3, 4, rngs=nnx.Rngs(0))
    weight = torch.tensor(np.asarray(layer.kernel[...])).permute(3, 2, 0, 1).requires_grad_()
    image = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
    torch.nn.functional.conv2d(image, weight, padding=1).square().sum().backward()
    graphdef, params = nnx.split(layer)
    params = nnx.to_pure_dict(params)
    params["bias"] = jnp.zeros_like(params["bias"])

    def loss(params, x):
        return jnp.square(nnx.merge(graphdef, params)(x)).sum()

    grads, dx = jax.grad(loss, (0, 1))(params, x)
    np.testing.assert_allclose(grads["kernel"], weight.grad.permute(2, 3, 1, 0), atol=1e-3)
    np.testing.assert_allclose(dx, image.grad.permute(0, 2, 3, 1), atol=1e-4)


def test_fresh_weights_have_torchs_spread():
    layer = dense.dense(48, 512, rngs=nnx.Rngs(0))
    bound = 48**-0.5
    for value in (layer.kernel[...], layer.bias[...]):
        assert np.abs(value).max() <= bound
        # of a uniform distribution over [-bound, bound]
        assert np.std(value) == pytest.approx(bound / 3**0.5, rel=0.08)


def test_zero_init_is_zero():
    layer = conv.Conv2d(3, 4, zero_init=True, rngs=nnx.Rngs(0))
    assert not np.any(layer.kernel[...]) and not np.any(layer.bias[...])


def test_nearest_upsampling_repeats_pixels():
    x = np.arange(6.0, dtype=np.float32).reshape(1, 2, 3, 1)
    want = x.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(plain.nearest(x), want)


def test_resampling_layers_halve_and_double():
    x = jnp.ones((1, 4, 6, 8))
    assert conv.Downsample(8, rngs=nnx.Rngs(0))(x).shape == (1, 2, 3, 8)
    assert conv.Upsample(8, rngs=nnx.Rngs(0))(x).shape == (1, 8, 12, 8)


def test_patches_fold_and_unfold():
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 3)).astype(np.float32)
    folded = patches.space_to_depth(x, (2, 3))
    assert folded.shape == (2, 2, 2, 18)
    np.testing.assert_array_equal(folded[0, 1, 0], x[0, 2:4, 0:3].reshape(-1))
    np.testing.assert_array_equal(patches.depth_to_space(folded, (2, 3)), x)


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="4x6 pixels cannot be cut into patches of 3x2"):
        patches.space_to_depth(jnp.ones((1, 4, 6, 1)), (3, 2))
