"""Stage 2 as a task: batch in, loss and gradients out, frozen parts stay."""

import functools

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tiny

from foley_jax.diff_foley.tasks import ldm
from foley_jax.media import mel


def _config(**loss):
    return ml_collections.ConfigDict(
        {
            "dtype": "float32",
            "audio": tiny.AUDIO,
            "video": tiny.VIDEO,
            "data": {
                "window_frames": 16,
                "num_rows": 4,
                "merge_probability": 0.5,
                "aligned": True,
            },
            "loss": {
                "prediction": "v",
                "weighting": "uniform",
                "condition_dropout": 0.2,
                **loss,
            },
            "model": {
                "unet": {**tiny.TRUNK, "num_res_blocks": 1, "locality_bias": True},
                "autoencoder": tiny.MEL_AUTOENCODER,
                "conditioner": tiny.CONDITIONER,
                "latent_scale": 0.7,
            },
        }
    )


def _batch(size=4):
    rng = np.random.default_rng(0)
    return {
        "audio_BPL": (rng.standard_normal((size, 2, 800)) * 3000).astype(np.int16),
        "mel_frame_BT": np.concatenate(
            [np.tile(np.arange(8), (size, 1)), np.tile(50 + np.arange(8), (size, 1))], axis=1
        ).astype(np.int32),
        "cavp_BLD": rng.standard_normal((size, 4, 5)).astype(np.float16),
        "context_s_BL": np.tile(np.arange(4, dtype=np.float32) * 0.005, (size, 1)),
    }


@functools.cache
def _filled():
    """Task, definition, parameters, rest: no layer zero, as after some training."""
    task = ldm.LatentDiffusionTask(_config())
    model = filled.module(task.build)
    graphdef, params, rest = nnx.split(model, task.trainable, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    return task, graphdef, params, {**rest, "latent_scale": jnp.float32(0.7)}


@functools.cache
def _loss_fn(train, **loss):
    _, graphdef, _, rest = _filled()
    task = ldm.LatentDiffusionTask(_config(**loss))

    def loss(params, batch, seed):
        model = nnx.merge(graphdef, params, rest)
        return task.loss(model, batch, jax.random.key(seed), train=train)

    return loss, task


@pytest.mark.slow
def test_training_step_has_finite_gradients_for_the_trained_parts_only():
    _, _, params, rest = _filled()
    loss, _ = _loss_fn(True)
    (value, metrics), grads = filled.jit(jax.value_and_grad(loss, has_aux=True))(
        params, _batch(), 0
    )
    assert np.isfinite(value) and value > 0 and value.dtype == np.float32
    assert set(metrics) == {"loss_low_noise", "loss_high_noise", "latent_std"}
    assert set(grads) == {"unet", "conditioner"}
    assert set(rest) == {"autoencoder", "latent_scale"}
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.slow
def test_evaluation_is_a_function_of_its_batch_and_key():
    _, _, params, _ = _filled()
    loss, _ = _loss_fn(False)
    run = filled.jit(loss)
    first, again, other = (run(params, _batch(), seed)[0] for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.slow
def test_dropped_conditions_are_the_conditioner_of_zeros():
    _, _, params, _ = _filled()
    batch = _batch()
    loss, _ = _loss_fn(True, condition_dropout=1.0)
    run = filled.jit(loss)
    value = run(params, batch, 0)[0]
    blind = run(params, {**batch, "cavp_BLD": 0 * batch["cavp_BLD"]}, 0)[0]
    assert value == blind
    kept, _ = _loss_fn(True, condition_dropout=0.0)
    assert filled.jit(kept)(params, batch, 0)[0] != value


def test_latents_are_those_of_the_frames_asked_for():
    task, graphdef, params, rest = _filled()
    batch, key = _batch(), jax.random.key(0)

    def both(params, rest):
        model = nnx.merge(graphdef, params, rest)
        audio = batch["audio_BPL"].astype(np.float32) / 32768
        mels = mel.log_mel(audio, task.audio)  # [B, 2, F, 41]
        # frame 50 is frame 9 of the second audio, whose first is 41
        wanted = jnp.concatenate([mels[:, 0, :, :8], mels[:, 1, :, 9:17]], axis=-1)
        return task.latents(model, batch, key), model.encode_mel(wanted, key=key)

    got, want = filled.jit(both)(params, rest)
    assert got.shape == (4, 4, 8, 4)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_decay_spares_the_locality_prior():
    task, _, params, _ = _filled()
    mask = task.weight_decay_mask(params)
    block = mask["unet"]["middle_block"][1]["transformer_blocks"][0]
    assert not any(jax.tree.leaves(block["locality"]))
    assert all(jax.tree.leaves(mask["conditioner"]))


@pytest.mark.parametrize("prediction", ["epsilon", ""])
def test_unknown_prediction_is_refused(prediction):
    _, _, params, _ = _filled()
    loss, _ = _loss_fn(False, prediction=prediction)
    with pytest.raises(ValueError, match="prediction is"):
        jax.eval_shape(loss, params, _batch(), 0)


@pytest.mark.slow
def test_shows_real_and_sampled_windows():
    task, graphdef, params, rest = _filled()
    module = nnx.merge(graphdef, params, rest)
    batch = _batch()
    batch["mel_frame_BT"] = np.tile(
        np.arange(3, 67, dtype=np.int32), (4, 1)
    )  # one audio clip, 64 hops
    batch["audio_BPL"] = np.tile(batch["audio_BPL"], (1, 1, 2))  # 1600 samples
    found = filled.shown(task, module, batch, 2)
    assert set(found) == {
        f"{w}/{i}" for w in ("mel", "sound_real", "sound_sampled") for i in (0, 1)
    }
    # two mels of 8 bins and 64 frames, twice as large, each under a caption
    assert found["mel/0"].pixels_HWC.shape == (2 * (14 + 2 * 8) + 3, 2 * 64, 3)
    real, sampled = found["sound_real/1"], found["sound_sampled/1"]
    assert real.sample_rate_hz == sampled.sample_rate_hz == 16000
    wanted = batch["audio_BPL"][1, 0, 3 * 20 : 67 * 20] / 32768
    np.testing.assert_allclose(real.audio_L, wanted, atol=1e-6)
    assert len(sampled.audio_L) == 63 * 20
