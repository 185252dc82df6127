"""Seconds in the queries and keys of RS-MMA."""

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mm_diffusion as config_file
from foley_jax.mm_diffusion.models import time_positions, window_attention
from foley_jax.runtime import network as network_lib
from foley_jax.training import task as task_lib

F, M, L, N, D = 8, 2, 32, 2, 16
C = N * D


def layer(**fields):
    build = {"window": 4, "time_positions": True, "rngs": nnx.Rngs(0), **fields}
    return window_attention.WindowAttention(C, N, **build)


def logits(q_TND, k_SND):
    return jnp.einsum("tnd,snd->nts", q_TND, k_SND) / D**0.5


def test_tokens_are_at_their_seconds():
    video_FD, audio_LD = time_positions.angles(F, L, 0.1, D)
    turn = 2 * np.pi / time_positions.FASTEST_S
    np.testing.assert_allclose(video_FD[:, 0], np.arange(F) * 0.1 * turn, rtol=1e-5)
    np.testing.assert_allclose(audio_LD[:, 0], (np.arange(L) + 0.5) * 0.025 * turn, rtol=1e-5)
    # another length of the clip moves nothing
    longer, _ = time_positions.angles(2 * F, 2 * L, 0.1, D)
    np.testing.assert_array_equal(longer[:F], video_FD)


def test_logits_depend_on_the_time_between_tokens_alone():
    qkv = jnp.asarray(np.random.default_rng(0).standard_normal((1, 1, 3 * C)), jnp.float32)
    video_FD, _ = time_positions.angles(F, L, 0.1, D)
    turned = time_positions.turned(jnp.tile(qkv, (1, F, 1)), video_FD, N)[0]
    q_FND, k_FND = (turned[:, i * C : (i + 1) * C].reshape(F, N, D) for i in (0, 1))
    np.testing.assert_array_equal(turned[:, 2 * C :], np.tile(qkv[0, :, 2 * C :], (F, 1)))
    logits_NFF = logits(q_FND, k_FND)
    for apart in range(-3, 4):
        same_ND = np.diagonal(logits_NFF, apart, axis1=1, axis2=2)
        np.testing.assert_allclose(same_ND, np.tile(same_ND[:, :1], same_ND.shape[1]), atol=1e-4)


@pytest.mark.slow
def test_attention_starts_with_what_is_near():
    made = layer()
    video = made.video_qkv(jnp.zeros((1, F, M, C)))  # nothing but the biases
    audio = made.audio_qkv(jnp.zeros((1, L, C)))
    video, audio = made._turned(video, audio)
    q_FND = video[0, :, 0, :C].reshape(F, N, D)
    k_LND = audio[0, :, C : 2 * C].reshape(L, N, D)
    nearest = np.asarray(logits(q_FND, k_LND).argmax(-1))
    times = (nearest + 0.5) * 0.025
    np.testing.assert_allclose(times, np.tile(np.arange(F) * 0.1, (N, 1)), atol=0.013)


def test_keys_keep_their_time_under_every_shift():
    """A whole window: the shift decides the order of the keys and nothing else."""
    made = filled.module(lambda keys: layer(window=F, rngs=keys))
    graphdef, state = nnx.split(made)
    rng = np.random.default_rng(0)
    video = jnp.asarray(rng.standard_normal((1, F, 1, M, C)), jnp.float32)
    audio = jnp.asarray(rng.standard_normal((1, L, C)), jnp.float32)

    @filled.jit
    def both(state):
        """The cross-attention of windows, and of the middle block, of the same weights."""
        made = nnx.merge(graphdef, state)
        windowed = made(video, audio, jnp.int32(0))
        made.window = None
        whole = made(video, audio)
        made.time_positions = False
        return windowed, whole, made(video, audio)

    windowed, whole, without = both(nnx.to_pure_dict(state))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), windowed, whole)
    assert np.abs(whole[0] - without[0]).max() > 1e-3


def test_without_them_nothing_is_another():
    plain, timed = layer(time_positions=False), layer()
    shapes = [jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(x))) for x in (plain, timed)]
    assert shapes[0] == shapes[1]
    same = window_attention.WindowAttention(C, N, window=4, rngs=nnx.Rngs(0))
    jax.tree.map(
        np.testing.assert_array_equal,
        nnx.to_pure_dict(nnx.state(plain)),
        nnx.to_pure_dict(nnx.state(same)),
    )


def test_the_network_takes_its_rate_from_the_config():
    config = config_file.get_config("embedded")
    config.video.fps = 12.5
    levels = {"cross_attention_downsamples": (1,), "cross_attention_windows": (8,)}
    config.model.update({"channel_mult": (1,), "video_attention_downsamples": (), **levels})
    built = network_lib.shapes(task_lib.resolve(config).build)
    cross = [x for _, x in nnx.iter_graph(built) if isinstance(x, window_attention.WindowAttention)]
    assert cross and all(x.time_positions and x.frame_s == 1 / 12.5 for x in cross)


def test_gradients_reach_every_part():
    graphdef, params = nnx.split(filled.module(lambda keys: layer(rngs=keys)))
    rng = np.random.default_rng(0)
    video = jnp.asarray(rng.standard_normal((1, F, 1, M, C)), jnp.float32)
    audio = jnp.asarray(rng.standard_normal((1, L, C)), jnp.float32)

    def loss(params):
        made = nnx.merge(graphdef, params)(video, audio, jnp.int32(1))
        return sum(jnp.square(x).sum() for x in made)

    grads = filled.jit(jax.grad(loss))(nnx.to_pure_dict(params))
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0, jax.tree_util.keystr(path)
