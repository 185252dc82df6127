"""CAVP's encoders in torch give our rows."""

import compiled
from flax import nnx
import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="peers are torch modules")
import torch

from foley_jax.bench import weights
from foley_jax.bench.peers import cavp as peer
from foley_jax.diff_foley.models import cavp

TINY = {
    "embed_dim": 16,
    "video": {"depths": (1, 2, 1), "width": 8, "inflate": (False, False, True)},
    "audio": {"channels": (4, 4, 8, 8, 8, 16), "num_mels": 64, "dropout": 0.0},
}
ATOL = 1e-5  # of unit scale: float32 in another order, BatchNorm folded or not


@pytest.fixture(scope="module")
def both():
    model = compiled.build(lambda keys: cavp.from_config(TINY, rngs=keys))
    state = nnx.to_pure_dict(nnx.state(model))
    return model, weights.official("diff_foley/cavp", jax.device_get(state))


def _random(*shape):
    return np.random.default_rng(0).random(shape, np.float32)


def _worst(model, encode, module, x):
    ours = compiled.run(model, encode, x)[0]
    with torch.inference_mode():
        theirs = module(torch.tensor(x)).numpy()
    assert ours.shape == theirs.shape
    # the rows' scale is 1 / sqrt(width)
    return np.abs(ours - theirs).max() * np.sqrt(TINY["embed_dim"])


@pytest.mark.slow
def test_rows_of_images_agree(both):
    model, state = both
    x = _random(2, 4, 64, 48, 3)
    module = peer.video_encoder(state)
    assert _worst(model, lambda model, x: model.encode_video(x), module, x) < ATOL
    # rows depend on the frames around them: the temporal convolutions are there
    with torch.inference_mode():
        alone = module(torch.tensor(x[:, :1]))
        among = module(torch.tensor(x))[:, :1]
    assert (alone - among).abs().max() > 100 * ATOL


def test_rows_of_audio_agree(both):
    model, state = both
    module = peer.audio_encoder(state)
    encode = lambda model, x: model.encode_spec(x)  # noqa: E731
    assert _worst(model, encode, module, _random(2, 64, 76)) < ATOL


def test_a_state_dict_of_another_network(both):
    _, state = both
    with pytest.raises(ValueError, match=r"no 'video_encoder.conv1.conv.weight'"):
        peer.video_encoder({})
    with pytest.raises(ValueError, match=r"1 tensors have no place.*spec_encoder.extra"):
        peer.audio_encoder({**state, "spec_encoder.extra": np.zeros(3)})
