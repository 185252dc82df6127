"""The coupled U-Net in torch predicts our noise."""

import compiled
from flax import nnx
import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="peers are torch modules")
import torch

from foley_jax.bench import weights
from foley_jax.bench.peers import mm_diffusion as peer
from foley_jax.mm_diffusion.models import coupled_unet

TINY = {
    "model_channels": 64,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "cross_attention_downsamples": (1, 2),
    "cross_attention_windows": (1, 2),
    "video_attention_downsamples": (2,),
    "head_channels": 16,
    "num_frames": 4,
}
ATOL = 1e-5  # of unit scale: float32 in another order


def both(**fields):
    """Our module and the official state dict that it came from."""
    fields = {**TINY, **fields}
    model = compiled.build(lambda keys: coupled_unet.CoupledUNet(**fields, rngs=keys))
    state = nnx.to_pure_dict(nnx.state(model))
    return model, weights.official("mm_diffusion/base", jax.device_get(state))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_res_blocks", "length", "shifts"),
    [pytest.param(1, 64, (1, 2, 0, 2, 1, 3), marks=pytest.mark.slow), (0, 76, (2, 3))],
)
def test_noise_agrees(num_res_blocks, length, shifts):
    """Frames that divide the samples of every level, and frames that do not."""
    model, state = both(num_res_blocks=num_res_blocks)
    rng = np.random.default_rng(0)
    video = rng.standard_normal((1, 4, 8, 8, 3), np.float32)
    audio = rng.standard_normal((1, length, 1), np.float32)
    t = np.array([300], np.int32)
    ours = compiled.call(model, video, audio, t, np.array(shifts, np.int32))
    module = peer.coupled_unet(state, {**TINY, "num_res_blocks": num_res_blocks})
    with torch.inference_mode():
        theirs = module(*map(torch.tensor, (video, audio, t)), shifts)
        moved = module(*map(torch.tensor, (video, audio, t)), (0,) * len(shifts))
    for a, b, c in zip(ours, theirs, moved):
        scale = np.asarray(a).std()
        assert a.shape == b.shape
        assert np.abs(a - b.numpy()).max() < ATOL * scale
        assert (b - c).abs().max() > 100 * ATOL * scale  # shifts are heeded


@pytest.mark.slow
def test_a_network_without_peer():
    _, state = both()
    with pytest.raises(ValueError, match=r"video_patch and audio_patch are \(8, 32\)"):
        peer.coupled_unet(state, {**TINY, "video_patch": 8, "audio_patch": 32})
    with pytest.raises(ValueError, match="output_blocks.1 has more blocks than the config says"):
        peer.coupled_unet(state, {**TINY, "num_res_blocks": 0})
