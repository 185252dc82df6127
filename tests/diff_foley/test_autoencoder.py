"""The autoencoder in small: shapes, posterior, padding of the strided convolution."""

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from foley_jax.diff_foley.models import autoencoder

SMALL = {
    "in_channels": 1,
    "out_channels": 2,
    "z_channels": 3,
    "ch": 8,
    "ch_mult": (1, 2),
    "num_res_blocks": 1,
    "num_groups": 4,
}


def _normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _small(**fields):
    return filled.module(lambda keys: autoencoder.from_config({**SMALL, **fields}, rngs=keys))


@pytest.mark.parametrize("patch,latent", [((1, 1), (4, 8)), ((2, 4), (2, 2))])
def test_shapes_with_and_without_patches(patch, latent):
    graphdef, params = nnx.split(_small(patch=patch))

    def both(params, x):
        model = nnx.merge(graphdef, params)
        mean, logvar = model.encode(x)
        return mean, logvar, model.decode(mean)

    x = jnp.zeros((2, 8, 16, 1), jnp.float32)
    mean, logvar, image = jax.eval_shape(both, nnx.to_pure_dict(params), x)
    assert mean.shape == logvar.shape == (2, *latent, 3)
    assert image.shape == (2, 8, 16, 2)


def test_logvar_is_clamped():
    model = _small()
    model.quant_conv.kernel[...] = 1e6 * model.quant_conv.kernel[...]
    graphdef, params = nnx.split(model)
    run = filled.jit(lambda params, x: nnx.merge(graphdef, params).encode(x))
    _, logvar = run(nnx.to_pure_dict(params), _normal(1, 8, 8, 1))
    assert float(logvar.min()) == -30.0 and float(logvar.max()) == 20.0


def test_downsampling_pads_only_bottom_and_right():
    resize = autoencoder.Resize(2, down=True, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = _normal(1, 4, 6, 2)
    weight = torch.tensor(np.asarray(resize.conv.kernel[...])).permute(3, 2, 0, 1)
    padded = torch.nn.functional.pad(torch.tensor(x).permute(0, 3, 1, 2), (0, 1, 0, 1))
    bias = torch.tensor(np.asarray(resize.conv.bias[...]))
    want = torch.nn.functional.conv2d(padded, weight, bias, stride=2).permute(0, 2, 3, 1)
    np.testing.assert_allclose(resize(x), want, atol=1e-5)


def test_sample_has_the_posteriors_moments():
    mean, logvar = jnp.full((20000,), 2.0), jnp.full((20000,), np.log(0.25))
    z = autoencoder.sample(mean, logvar, key=jax.random.key(0))
    assert np.mean(z) == pytest.approx(2.0, abs=0.02)  # 5 standard errors
    assert np.std(z) == pytest.approx(0.5, abs=0.02)
    np.testing.assert_array_equal(autoencoder.sample(mean, logvar, key=None), mean)


def test_kl_is_zero_for_the_prior_and_torchs_elsewhere():
    assert float(autoencoder.kl_divergence(jnp.zeros((1, 2)), jnp.zeros((1, 2)))[0]) == 0.0
    mean, logvar = _normal(2, 3), _normal(2, 3, seed=1)
    posterior = torch.distributions.Normal(torch.tensor(mean), torch.tensor(logvar / 2).exp())
    prior = torch.distributions.Normal(0.0, 1.0)
    want = torch.distributions.kl_divergence(posterior, prior).sum(-1)
    np.testing.assert_allclose(autoencoder.kl_divergence(mean, logvar), want, rtol=1e-5)


def test_sizes_that_do_not_fit_are_refused():
    model = _small()
    with pytest.raises(ValueError, match="image is 7x8x1"):
        model.encode(jnp.zeros((1, 7, 8, 1)))


@pytest.mark.slow
def test_gradients_are_finite():
    graphdef, params = nnx.split(_small())

    def loss(params, x):
        model = nnx.merge(graphdef, params)
        mean, logvar = model.encode(x)
        return model.decode(mean).sum() + autoencoder.kl_divergence(mean, logvar).sum()

    grads = filled.jit(jax.grad(loss))(nnx.to_pure_dict(params), _normal(1, 8, 8, 1))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
