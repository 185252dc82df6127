"""A small network and its checkpoint, as others would save it."""

from flax import nnx
import jax.numpy as jnp
import numpy as np
import torch

from foley_jax.interop import spec


class Small(nnx.Module):
    """A dense layer, a convolution along time, a norm with statistics, and one number."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.conv = nnx.Conv(4, 2, (3,), rngs=rngs)
        self.bn = nnx.BatchNorm(2, rngs=rngs)
        self.logit_scale = nnx.Param(jnp.ones(()))


KIND = spec.Checkpoint(
    build=lambda model, rngs: Small(rngs=rngs),
    model={},
    signature=(r"first\.weight", r"logit_scale"),
)


class Net(torch.nn.Module):
    """Our network in PyTorch."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(3, 4)
        self.conv = torch.nn.Conv1d(4, 2, 3)
        self.bn = torch.nn.BatchNorm1d(2)
        self.logit_scale = torch.nn.Parameter(torch.tensor(2.5))


def state_dict(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights that differ everywhere."""
    generator = torch.Generator().manual_seed(seed)
    state = Net().state_dict()
    for value in state.values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return state


def assert_holds(module: Small, state: dict[str, torch.Tensor], rtol: float = 0) -> None:
    """Asserts that a converted module has the weights of a state dict."""
    for found, key in (
        (jnp.transpose(module.first.kernel[...]), "first.weight"),
        (jnp.transpose(module.conv.kernel[...], (2, 1, 0)), "conv.weight"),
        (module.bn.mean[...], "bn.running_mean"),
        (module.logit_scale[...], "logit_scale"),
    ):
        want = state[key].float().numpy()
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, want, rtol=rtol)
