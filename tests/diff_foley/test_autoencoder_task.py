"""The autoencoder stage as a task: crops, loss, the running latent scale, the critic."""

import types

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tiny

from foley_jax.diff_foley.models import discriminator, latent_diffusion
from foley_jax.diff_foley.tasks import autoencoder
from foley_jax.media import mel


def _config(adversarial_start=None):
    config = ml_collections.ConfigDict(
        {
            "dtype": "float32",
            "audio": tiny.AUDIO,
            "loss": {"crop_frames": 16, "reconstruction": "l1", "kl_weight": 1e-4},
            "model": {
                "autoencoder": tiny.MEL_AUTOENCODER,
                "latent_scale": 1.0,
            },
        }
    )
    if adversarial_start is not None:
        config.loss.adversarial_weight = 0.5
        config.loss.adversarial_start = adversarial_start
        config.model.discriminator = {"channels": 4, "num_layers": 1, "num_groups": 2}
    return config


def _batch(size=2):
    rng = np.random.default_rng(0)
    return {
        "audio_BL": (rng.standard_normal((size, 800)) * 3000).astype(np.int16),
        "start_B": np.arange(size, dtype=np.int32) * 3,
    }


def _step(config, *, train=True):
    """One loss with gradients: value, metrics, gradients, rest before and after."""
    task = autoencoder.AutoencoderTask(config)
    model = filled.module(task.build)
    graphdef, params, rest = nnx.split(model, task.trainable, ...)
    start = {"latent_scale": jnp.float32(1.0), "step_count": jnp.int32(0)}
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    rest = {name: start[name] for name in rest}

    def loss(params, batch):
        model = nnx.merge(graphdef, params, rest)
        value, metrics = task.loss(model, batch, jax.random.key(0), train=train)
        return value, (metrics, nnx.to_pure_dict(nnx.split(model, task.trainable, ...)[2]))

    run = filled.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (metrics, after)), grads = jax.device_get(run(params, _batch()))
    return value, metrics, grads, jax.device_get(rest), after


@pytest.mark.slow
def test_step_has_finite_gradients_and_follows_the_scale():
    value, metrics, grads, before, after = _step(_config())
    assert np.isfinite(value) and value > 0
    assert value == pytest.approx(metrics["l1"] + 1e-4 * metrics["kl"], rel=1e-6)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert set(before) == set(after) == {"latent_scale"}
    assert before["latent_scale"] == 1.0 and after["latent_scale"] != 1.0


def test_scale_tends_to_one_over_the_deviation_of_the_latents():
    task = autoencoder.AutoencoderTask(_config())
    z = 4.0 * jax.random.normal(jax.random.key(0), (2, 8, 8, 4))

    def update(_, scale):
        model = types.SimpleNamespace(latent_scale=latent_diffusion.LatentScale(scale))
        task.track_scale(model, z)
        return model.latent_scale[...]

    scale = jax.lax.fori_loop(0, 600, update, jnp.float32(1.0))
    assert float(scale) == pytest.approx(1.0 / float(jnp.std(z)), rel=0.01)


@pytest.mark.slow
def test_evaluation_leaves_the_state_alone():
    *_, before, after = _step(_config(), train=False)
    assert before["latent_scale"] == after["latent_scale"]


@pytest.mark.slow
def test_crops_are_slices_of_the_whole_mel():
    task = autoencoder.AutoencoderTask(_config())
    batch = _batch()
    whole = mel.log_mel(batch["audio_BL"].astype(np.float32) / 32768, task.audio)
    got = task.crops(batch)
    assert got.shape == (2, 8, 16)
    np.testing.assert_allclose(got[1], whole[1, :, 3:19], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("start,active", [(0, True), (5, False)])
def test_critic_counts_from_its_first_step_on(start, active):
    value, metrics, grads, before, after = _step(_config(adversarial_start=start))
    plain = metrics["l1"] + 1e-4 * metrics["kl"]
    extra = 0.5 * metrics["critic_opinion"] + metrics["critic_loss"]
    assert value == pytest.approx(plain + active * extra, rel=1e-5)
    assert before["step_count"] == 0 and after["step_count"] == 1
    moved = max(np.abs(g).max() for g in jax.tree.leaves(grads["discriminator"]))
    assert (moved > 0) == active


def test_opinion_moves_the_image_but_not_the_critic():
    fields = {"in_channels": 1, "channels": 4, "num_layers": 1, "num_groups": 2}
    critic = filled.module(lambda keys: discriminator.PatchDiscriminator(**fields, rngs=keys))
    graphdef, params = nnx.split(critic)
    x = np.random.default_rng(0).random((1, 16, 16, 1)).astype(np.float32)

    def opinion(params, x):
        return discriminator.frozen(nnx.merge(graphdef, params))(x).mean()

    to_critic, to_image = filled.jit(jax.grad(opinion, (0, 1)))(nnx.to_pure_dict(params), x)
    assert all(not np.any(g) for g in jax.tree.leaves(to_critic))
    assert np.abs(to_image).max() > 0


def test_hinge_loss_is_zero_when_the_critic_is_sure():
    sure, unsure = jnp.full((2, 2), 1.5), jnp.zeros((2, 2))
    assert float(discriminator.hinge_loss(sure, -sure)) == 0.0
    assert float(discriminator.hinge_loss(unsure, unsure)) == 1.0


def test_critic_without_a_network_and_unknown_errors_are_refused():
    config = _config()
    config.loss.adversarial_weight = 0.1
    with pytest.raises(ValueError, match="set config.model.discriminator"):
        autoencoder.AutoencoderTask(config)
    config = _config()
    config.loss.reconstruction = "huber"
    with pytest.raises(ValueError, match="'huber', use 'l1' or 'l2'"):
        autoencoder.AutoencoderTask(config)


@pytest.mark.slow
def test_shows_mels_in_and_out_and_their_audio():
    config = _config()
    config.loss.crop_frames = 32
    task = autoencoder.AutoencoderTask(config)
    module = filled.module(task.build)
    found = filled.shown(task, module, _batch(), 1)
    assert set(found) == {"mel/0", "sound_in/0", "sound_out/0"}
    image = found["mel/0"].pixels_HWC
    assert image.shape == (2 * (14 + 2 * 8) + 3, 2 * 32, 3)
    into, out = image[14:30], image[30 + 3 + 14 :]
    assert into.shape == out.shape and (into != out).any()
    assert len(found["sound_in/0"].audio_L) == 31 * 20
    assert np.abs(found["sound_in/0"].audio_L - found["sound_out/0"].audio_L).max() > 1e-4
