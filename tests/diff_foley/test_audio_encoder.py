"""Cnn14: time axis kept, pooling as torch, dropout only with a key."""

import compiled
import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from foley_jax.diff_foley.models import audio_encoder

CHANNELS = (4, 4, 8, 8, 8, 12)


def _mel(*shape):
    return jnp.asarray(np.random.default_rng(0).random(shape), jnp.float32)


def _tiny(**options):
    fields = {"channels": CHANNELS, "num_mels": 64, "embed_dim": 6, "dropout": 0.0, **options}
    return compiled.build(lambda keys: audio_encoder.Cnn14(**fields, rngs=keys))


@pytest.mark.slow
@pytest.mark.parametrize("stem,channels", [("blocks", CHANNELS), ("patch4", CHANNELS[1:])])
@pytest.mark.parametrize("frames,features", [(64, 4), (76, 4)])
def test_sixteen_mel_frames_make_one_row(stem, channels, frames, features):
    out = compiled.call(_tiny(stem=stem, channels=channels), _mel(2, 64, frames))
    assert out.shape == (2, features, 6)


@pytest.mark.parametrize(
    "stem,channels,reduction", [("blocks", CHANNELS, 4), ("patch4", CHANNELS[1:], 8)]
)
def test_fewer_pools_make_more_rows(stem, channels, reduction):
    model = _tiny(stem=stem, channels=channels, time_reduction=reduction)
    assert compiled.call(model, _mel(1, 64, 64)).shape == (1, 64 // reduction, 6)


def test_unknown_reductions_are_refused():
    with pytest.raises(ValueError, match="expected one of 4, 8, 16 with stem 'patch4'"):
        _tiny(stem="patch4", channels=CHANNELS[1:], time_reduction=2)


def test_pools_are_torchs():
    x = _mel(2, 7, 5, 3)  # [B, T, F, C]
    want = torch.nn.functional.avg_pool2d(torch.tensor(np.asarray(x)).permute(0, 3, 1, 2), 2)
    got = audio_encoder._average_pool(x, (2, 2))
    np.testing.assert_allclose(got, want.permute(0, 2, 3, 1).numpy(), rtol=1e-6)
    y = torch.tensor(np.asarray(x[..., 0]) - 0.5)  # [B, T, C]; negative values meet the padding
    y_BCT = y.permute(0, 2, 1)
    want = torch.nn.functional.max_pool1d(y_BCT, 3, 1, 1) + torch.nn.functional.avg_pool1d(
        y_BCT, 3, 1, 1
    )
    got = audio_encoder._smooth_time(jnp.asarray(y.numpy()))
    np.testing.assert_allclose(got, want.permute(0, 2, 1).numpy(), rtol=1e-6, atol=1e-7)


def test_the_dense_layer_is_applied_twice():
    def by_parts(encoder, mel):
        h = encoder.apply_norm(mel, train=False)
        for index in range(1, 7):
            h = encoder.apply_block(index, h, train=False)
        h = audio_encoder._smooth_time(h.mean(2))
        for _ in range(2):
            h = nnx.relu(encoder.fc1(h))
        return encoder(mel), encoder.final_project(h)

    (whole, parts), _ = compiled.run(_tiny(), by_parts, _mel(1, 64, 32))
    np.testing.assert_allclose(whole, parts, rtol=1e-6)


def test_every_mel_bin_has_its_own_statistics():
    mel = _mel(2, 64, 32)
    encoder = _tiny()
    _, after = compiled.run(encoder, lambda module, mel: module(mel, train=True), mel)
    want = 0.9 * encoder.bn.mean[...] + 0.1 * mel.mean((0, 2))
    np.testing.assert_allclose(after["bn"]["mean"], want, rtol=1e-5)


@pytest.mark.slow
def test_dropout_needs_a_key_and_follows_it():
    encoder, mel = _tiny(dropout=0.5), _mel(2, 64, 32)
    with pytest.raises(ValueError, match="needs key="):
        encoder(mel, train=True)

    graphdef, state = nnx.split(encoder)

    @filled.jit
    def run(state, seed):
        return nnx.merge(graphdef, state)(mel, train=True, key=jax.random.key(seed))

    one, same, other = (run(state, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("stem,channels", [("blocks", CHANNELS), ("patch4", CHANNELS[1:])])
def test_gradients_are_finite_and_reach_every_parameter(stem, channels):
    mel = _mel(2, 64, 32)
    grads = compiled.gradient(
        _tiny(stem=stem, channels=channels), lambda module: module(mel, train=True).std()
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_errors_name_what_came():
    with pytest.raises(ValueError, match="5 channel widths, stem 'blocks' needs 6"):
        _tiny(channels=CHANNELS[1:])
    with pytest.raises(ValueError, match=r"expected \[B, 64, T\]"):
        _tiny()(_mel(2, 32, 64))
    with pytest.raises(ValueError, match="15 frames, expected >= 16"):
        _tiny()(_mel(2, 64, 15))
    with pytest.raises(ValueError, match="patches of 4x4"):
        _tiny(stem="patch4", channels=CHANNELS[1:])(_mel(2, 64, 79))
