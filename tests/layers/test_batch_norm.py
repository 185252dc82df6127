"""BatchNorm against torch, forward and backward."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from foley_jax.layers import batch_norm


def _pair(relu, two_pass=False):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((4, 3, 5, 6)) * 2 + 1).astype(np.float32)  # [B, H, W, C]
    ours, theirs = (
        batch_norm.BatchNorm(6, two_pass=two_pass, rngs=nnx.Rngs(0)),
        torch.nn.BatchNorm2d(6),
    )
    for name in ("weight", "bias"):
        value = rng.standard_normal(6).astype(np.float32)
        getattr(theirs, name).data = torch.tensor(value)
        getattr(ours, {"weight": "scale"}.get(name, name))[...] = value
    activation = torch.relu if relu else (lambda y: y)
    return x, ours, lambda x: activation(theirs(x)), theirs


@pytest.mark.parametrize(("relu", "two_pass"), [(False, False), (True, False), (True, True)])
def test_training_matches_torch_forward_and_backward(relu, two_pass):
    x, ours, fn, theirs = _pair(relu, two_pass)
    cotangent = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    x_torch = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    y_torch = fn(x_torch)
    y_torch.backward(torch.tensor(cotangent.transpose(0, 3, 1, 2)))
    graphdef, params, rest = nnx.split(ours, nnx.Param, ...)

    @jax.jit
    def run(params, rest, x):
        def fn(params, x):
            module = nnx.merge(graphdef, params, rest)
            y = module(x, train=True, relu=relu)
            return y, nnx.to_pure_dict(nnx.split(module, nnx.Param, ...)[2])

        y, vjp, rest_after = jax.vjp(fn, params, x, has_aux=True)
        return y, rest_after, vjp(jnp.asarray(cotangent))

    y, after, (dparams, dx) = run(nnx.to_pure_dict(params), nnx.to_pure_dict(rest), x)
    count = x.size // 6
    for got, want in (
        (y, y_torch.detach().numpy().transpose(0, 2, 3, 1)),
        (dx, x_torch.grad.numpy().transpose(0, 2, 3, 1)),
        (dparams["scale"], theirs.weight.grad.numpy()),
        (dparams["bias"], theirs.bias.grad.numpy()),
        (after["mean"], theirs.running_mean.numpy()),
        # torch keeps the unbiased variance
        ((after["var"] - 0.9) * count / (count - 1) + 0.9, theirs.running_var.numpy()),
    ):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("relu", [False, True])
def test_evaluation_matches_torch(relu):
    x, ours, fn, theirs = _pair(relu)
    theirs.running_mean = torch.arange(6.0)
    theirs.running_var = torch.arange(1.0, 7.0)
    theirs.eval()
    ours.mean[...], ours.var[...] = jnp.arange(6.0), jnp.arange(1.0, 7.0)
    want = fn(torch.tensor(x.transpose(0, 3, 1, 2))).detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours(jnp.asarray(x), train=False, relu=relu), want, atol=1e-5)
    np.testing.assert_array_equal(ours.mean[...], jnp.arange(6.0))  # not updated


def test_half_precision_keeps_float32_statistics():
    module = batch_norm.BatchNorm(3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((512, 3)) + 3, jnp.bfloat16)
    y = module(x, train=True)
    assert y.dtype == jnp.bfloat16 and module.mean.dtype == jnp.float32
    want = 0.1 * np.asarray(x, np.float32).mean(0)
    np.testing.assert_allclose(module.mean[...], want, rtol=1e-5)


def test_two_passes_keep_the_variance_of_channels_far_from_zero():
    """As log-mels are: a mean of many deviations."""
    x = (100.0 + 0.1 * np.random.default_rng(0).standard_normal((64, 8, 3))).astype(np.float32)
    want = np.float64(x).var((0, 1))
    errors = {}
    for two_pass in (False, True):
        norm = batch_norm.BatchNorm(3, two_pass=two_pass, rngs=nnx.Rngs(0))
        norm(jnp.asarray(x), train=True)
        var = (np.float64(norm.var[...]) - 0.9) / 0.1
        errors[two_pass] = np.abs(var / want - 1).max()
    assert errors[True] < 1e-3 < errors[False]  # the running value keeps 6e-5 of 0.9 + 0.001
