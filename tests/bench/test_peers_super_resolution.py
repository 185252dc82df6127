"""The super-resolution U-Net in torch predicts our noise."""

import compiled
from flax import nnx
import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="peers are torch modules")
import torch

from foley_jax.bench import weights
from foley_jax.bench.peers import super_resolution as peer
from foley_jax.mm_diffusion.models import super_resolution

TINY = {
    "model_channels": 64,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention_downsamples": (2,),
    "num_heads": 2,
}
ATOL = 1e-5  # of unit scale: float32 in another order


@pytest.mark.slow
def test_noise_and_variance_agree():
    model = compiled.build(lambda keys: super_resolution.SuperResolution(**TINY, rngs=keys))
    state = nnx.to_pure_dict(nnx.state(model))
    state = weights.official("mm_diffusion/super_resolution", jax.device_get(state))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 16, 16, 3), np.float32)
    low = rng.standard_normal((2, 4, 4, 3), np.float32)
    t = np.array([3, 700], np.int32)
    ours = np.asarray(compiled.call(model, x, low, t))
    module = peer.network(state, TINY)
    with torch.inference_mode():
        theirs = module(*map(torch.tensor, (x, low, t))).numpy()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < ATOL * ours.std()

    with pytest.raises(ValueError, match="tensors have no place in the peer"):
        peer.network(state, {**TINY, "channel_mult": (1,)})
