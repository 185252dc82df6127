"""The vocoder stage: its losses against torch, its critics, and a batch that can be learnt."""

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import librosa
import ml_collections
import numpy as np
import optax
import pytest
import torch
from torch.nn import functional as F

from configs import vocoder as vocoder_config
from foley_jax.diff_foley.tasks import vocoder
from foley_jax.media import mel
from foley_jax.runtime import network as network_lib
from foley_jax.training import task as task_lib
from foley_jax.vocoders import alias_free, neural
from foley_jax.vocoders import discriminators as critics_lib


def _config(adversarial=False):
    config = ml_collections.ConfigDict(
        {
            "task": "vocoder",
            "dtype": "float32",
            "audio": {"n_fft": 64, "hop": 20, "num_mels": 16, "fmin_hz": 0.0},
            "loss": {
                "crop_frames": 12,
                "mel_weight": 15.0,
                "mel_windows": (32, 128),
                "mel_bins": (5, 20),
            },
            "model": {
                "vocoder": {
                    "upsample_rates": (5, 4),
                    "upsample_kernel_sizes": (11, 8),
                    "upsample_initial_channel": 16,
                    "resblock_kernel_sizes": (3,),
                    "resblock_dilation_sizes": ((1,),),
                }
            },
        }
    )
    if adversarial:
        config.loss.adversarial_weight = 0.5
        config.loss.adversarial_start = 1
        config.model.discriminators = {
            "periods": (2,),
            "resolutions": ((64, 16, 40),),
            "channels": 2,
        }
    return config


def _batch():
    t = np.arange(800) / 16000
    tones = [np.sin(2 * np.pi * f * t) for f in (900.0, 2100.0)]
    return {
        "audio_BL": (np.stack(tones) * 9000).astype(np.int16),
        "start_B": np.array([3, 28], np.int32),
    }


def _split(task):
    model = filled.module(task.build)
    if model.step_count is not None:
        model.step_count[...] = jnp.int32(0)
    graphdef, params, rest = nnx.split(model, task.trainable, ...)
    small = jax.tree.map(lambda leaf: 0.3 * leaf, nnx.to_pure_dict(params))  # tanh stays open
    return graphdef, small, nnx.to_pure_dict(rest)


@pytest.mark.slow
def test_one_batch_is_overfitted():
    task = task_lib.resolve(_config())
    graphdef, params, rest = _split(task)
    rest = jax.tree.map(lambda _: jnp.asarray(alias_free.kaiser_sinc()), rest)
    # a rate that falls to zero: where training oscillates, the last loss is a matter of rounding
    optimizer = optax.adamw(optax.cosine_decay_schedule(3e-3, 120), b1=0.8, b2=0.99)
    batch = _batch()

    @filled.jit
    def step(params, state):
        def loss(params):
            model = nnx.merge(graphdef, params, rest)
            return task.loss(model, batch, jax.random.key(0), train=True)[0]

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    state, losses = optimizer.init(params), []
    for _ in range(120):
        params, state, value = step(params, state)
        losses.append(float(value))
    assert losses[-1] < 0.4 * losses[0], losses[::20]


@pytest.mark.slow
def test_crops_pair_frames_with_the_samples_they_stand_on():
    task, batch = vocoder.VocoderTask(_config()), _batch()
    mel_BFT, audio_BL = task.crops(batch)
    assert mel_BFT.shape == (2, 16, 12) and audio_BL.shape == (2, 240)
    whole = batch["audio_BL"].astype(np.float32) / 32768
    np.testing.assert_allclose(audio_BL[0], whole[0, 60:300], atol=1e-6)
    np.testing.assert_allclose(audio_BL[1], whole[1, 560:800], atol=1e-6)
    want = mel.log_mel(whole, task.audio)
    np.testing.assert_allclose(mel_BFT[1], want[1, :, 28:40], atol=1e-5)


def test_last_crop_of_a_audio_is_filled_with_silence():
    batch = {**_batch(), "start_B": np.array([29, 29], np.int32)}  # 41 frames of 800 samples
    _, audio_BL = vocoder.VocoderTask(_config()).crops(batch)
    whole = batch["audio_BL"].astype(np.float32) / 32768
    np.testing.assert_allclose(audio_BL[:, :220], whole[:, 580:], atol=1e-6)
    assert not np.any(audio_BL[:, 220:])


def test_mel_loss_is_the_sources():
    rng = np.random.default_rng(0)
    made, wanted = rng.standard_normal((2, 2, 700)).astype(np.float32) * 0.1
    want = 0.0
    for window, bins in ((32, 5), (512, 40)):
        basis = torch.from_numpy(librosa.filters.mel(sr=16000, n_fft=window, n_mels=bins))
        logs = []
        for x in (made, wanted):
            stft = torch.stft(
                torch.from_numpy(x),
                n_fft=window,
                hop_length=window // 4,
                window=torch.hann_window(window),
                center=True,
                return_complex=True,
            )
            logs.append(torch.log10(torch.clamp(basis @ stft.abs(), min=1e-5)))
        want += float((logs[0] - logs[1]).abs().mean())
    got = vocoder.multi_scale_mel_loss(made, wanted, 16000, windows=(32, 512), bins=(5, 40))
    assert float(got) == pytest.approx(want, rel=1e-5)


def _torch_weight(conv):
    kernel = torch.from_numpy(np.array(conv.kernel[...]))
    kernel = kernel.movedim((-1, -2), (0, 1))  # [*k, in, out] -> [out, in, *k]
    return kernel, torch.from_numpy(np.array(conv.bias[...]))


def test_period_critic_is_the_sources_2d_network():
    critic = filled.module(lambda keys: critics_lib.PeriodDiscriminator(3, channels=2, rngs=keys))
    audio = np.random.default_rng(0).standard_normal((2, 100)).astype(np.float32)
    x = F.pad(torch.from_numpy(audio)[:, None], (0, 2), "reflect").view(2, 1, 34, 3)
    features = []
    for i, conv in enumerate([*critic.convs, critic.conv_post]):
        weight, bias = _torch_weight(conv)
        pad = weight.shape[-1] // 2
        x = F.conv2d(x, weight[..., None], bias, stride=(3 if i < 4 else 1, 1), padding=(pad, 0))
        x = F.leaky_relu(x, 0.1) if i < 5 else x
        features.append(x)
    scores, got = filled.jit(lambda x: critic(x))(audio)
    assert len(got) == len(features) == 6
    for ours, theirs in zip(got, features):
        theirs = theirs.permute(0, 3, 2, 1).flatten(0, 1)  # [B, C, T, P] -> [B*P, T, C]
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5, rtol=1e-4)
    np.testing.assert_array_equal(scores, got[-1])


def test_resolution_critic_is_the_sources():
    resolution = (64, 16, 40)
    critic = filled.module(
        lambda keys: critics_lib.ResolutionDiscriminator(resolution, channels=2, rngs=keys)
    )
    audio = np.random.default_rng(0).standard_normal((2, 320)).astype(np.float32)
    n_fft, hop, length = resolution
    padded = F.pad(torch.from_numpy(audio)[:, None], ((n_fft - hop) // 2,) * 2, "reflect")[:, 0]
    stft = torch.stft(
        padded,
        n_fft,
        hop,
        length,
        window=torch.ones(length),
        center=False,
        return_complex=True,
    )
    x = stft.abs()[:, None]
    for i, conv in enumerate([*critic.convs, critic.conv_post]):
        weight, bias = _torch_weight(conv)
        pad = (weight.shape[-2] // 2, weight.shape[-1] // 2)
        x = F.conv2d(x, weight, bias, stride=(1, 2 if 1 <= i <= 3 else 1), padding=pad)
        x = F.leaky_relu(x, 0.1) if i < 5 else x
    scores, _ = filled.jit(lambda x: critic(x))(audio)
    np.testing.assert_allclose(scores[..., 0], x[:, 0].numpy(), atol=1e-4, rtol=1e-4)


def test_adversarial_losses_are_least_squares():
    def opinions(score):
        return [(jnp.full((2, 3), score), [jnp.full((4,), score), jnp.full((5,), 2 * score)])]

    assert float(critics_lib.critic_loss(opinions(1.0), opinions(0.0))) == 0.0
    assert float(critics_lib.critic_loss(opinions(0.5), opinions(0.5))) == 0.5
    assert float(critics_lib.opinion_loss(opinions(0.0))) == 1.0
    assert float(critics_lib.feature_loss(opinions(1.0), opinions(0.0))) == 3.0


@pytest.mark.slow
def test_critics_count_from_their_first_step_on():
    task = vocoder.VocoderTask(_config(adversarial=True))
    graphdef, params, rest = _split(task)

    def loss(params, rest):
        model = nnx.merge(graphdef, params, rest)
        value, metrics = task.loss(model, _batch(), jax.random.key(0), train=True)
        return value, (metrics, model.step_count[...])

    run = filled.jit(jax.value_and_grad(loss, has_aux=True))
    for count, active in ((0, False), (1, True)):
        now = {**rest, "step_count": jnp.int32(count)}
        (value, (metrics, after)), grads = jax.device_get(run(params, now))
        opinion = metrics["critic_opinion"] + 2.0 * metrics["feature_loss"]
        extra = 0.5 * opinion + metrics["critic_loss"]
        assert value == pytest.approx(15.0 * metrics["mel_loss"] + active * extra, rel=1e-5)
        assert after == count + 1
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
        assert any(map(np.any, jax.tree.leaves(grads["discriminators"]))) == active


def test_trained_generator_is_a_vocoder():
    task = vocoder.VocoderTask(_config())
    model = filled.module(task.build)
    waveform = neural.NeuralVocoder(model.generator, task.audio, scale="unit")
    assert waveform(jnp.full((1, 16, 9), 0.5), task.audio).shape == (1, 180)


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("loss", "crop_frames", 3, "are 60 samples, expected more than 64"),
        ("loss", "mel_bins", (5,), "2 mel_windows and 1 mel_bins"),
        ("loss", "adversarial_weight", 1.0, "set config.model.discriminators"),
        ("audio", "hop", 25, "config.audio has hop 25 .* upsample_rates must be the hop"),
    ],
)
def test_what_does_not_fit_is_refused(section, field, value, message):
    config = _config()
    config[section][field] = value
    with pytest.raises(ValueError, match=message):
        network_lib.shapes(vocoder.VocoderTask(config).build)


@pytest.mark.parametrize("variant", ["", "demo"])
def test_configs_build(variant):
    config = vocoder_config.get_config(variant)
    model = network_lib.shapes(task_lib.resolve(config).build)
    assert model.generator.hop == config.audio.hop
    assert (model.discriminators is None) == (variant == "demo")


def test_shows_audio_in_and_out():
    task = task_lib.resolve(_config())
    module = filled.module(task.build)
    batch = _batch()
    found = filled.shown(task, module, batch, 2)
    assert set(found) == {
        f"{what}/{i}" for what in ("mel", "sound_in", "sound_out") for i in (0, 1)
    }
    assert found["mel/1"].pixels_HWC.shape == (2 * (14 + 2 * 16) + 3, 2 * 12, 3)
    start, length = 28 * 20, 12 * 20
    wanted = np.pad(batch["audio_BL"][1] / 32768, (0, 20))[start : start + length]
    np.testing.assert_allclose(found["sound_in/1"].audio_L, wanted, atol=1e-6)
    assert found["sound_out/1"].audio_L.shape == (length,)
