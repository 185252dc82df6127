"""Every length follows the config's frames a second: configs, training steps, sampling."""

import importlib

import filled
from flax import nnx
import jax
import ml_collections
import numpy as np
import pytest
import tiny_foley

from foley_jax import sample
from foley_jax.diff_foley.sampling import pipeline
from foley_jax.media import specs
from foley_jax.training import task as task_lib


def rates(fast, slow):
    return pytest.mark.parametrize("fps", [fast, pytest.param(slow, marks=pytest.mark.slow)])


def config_of(stage, fps):
    """The tiny model of a stage at another rate; its windows stay one second."""
    config = getattr(tiny_foley, stage)()
    config.video.fps = fps
    if stage == "cavp":
        config.data.clip_frames = round(fps)
        config.model.audio.time_reduction = 4 if fps > 12 else 16
    else:
        config.data.num_rows = round(fps)
    return config


def gradients(config: ml_collections.ConfigDict, batch):
    """Loss and gradients of one training step."""
    task = task_lib.resolve(config)
    graphdef, params, rest = nnx.split(filled.model(config), task.trainable, ...)
    rest = nnx.to_pure_dict(rest)

    def loss(params, batch):
        model = nnx.merge(graphdef, params, rest)
        return task.loss(model, batch, jax.random.key(0), train=True)

    step = filled.jit(jax.value_and_grad(loss, has_aux=True))
    (value, metrics), grads = step(nnx.to_pure_dict(params), batch)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all(), jax.tree_util.keystr(path)
    return float(value), metrics


@pytest.mark.parametrize("stage", ["cavp", "ldm", "alignment"])
@pytest.mark.parametrize("arg", ["", "demo"])
@pytest.mark.parametrize("fps", [4.0, 12.0, 12.5, 25.0])
def test_lengths_of_configs_follow_the_rate(stage, arg, fps):
    config = importlib.import_module(f"configs.{stage}").get_config(arg)
    config.video.fps = fps
    if stage == "cavp":
        assert (config.data.clip_frames, config.data.min_gap_frames) == (4 * fps, 2 * fps)
    else:
        # 512 frames of hop 256 are 8.192 s
        assert config.data.num_rows == int((8.0 if arg else 8.192) * fps)
        assert config.model.conditioner.max_len == 10 * fps
    config.data.update({"clip_frames": 3} if stage == "cavp" else {"num_rows": 3})
    assert 3 in config.data.to_dict().values() and config.video.fps == fps


def test_the_embedded_recipe_is_of_one_rate_and_one_set_of_runs():
    found = {
        stage: importlib.import_module(f"configs.{stage}").get_config("embedded")
        for stage in ("autoencoder", "cavp", "ldm", "alignment")
    }
    assert {found[stage].video.fps for stage in ("cavp", "ldm", "alignment")} == {12.0}
    assert found["cavp"].data.clip_frames == 48 and found["ldm"].data.num_rows == 96
    assert found["ldm"].init_from.to_dict() == found["alignment"].init_from.to_dict()
    assert found["ldm"].model.autoencoder == found["autoencoder"].model.autoencoder
    assert found["ldm"].data.dir == found["alignment"].data.dir


@pytest.mark.slow
@rates(12.0, 25.0)
def test_cavp_takes_a_step(fps):
    config = config_of("cavp", fps)
    rng = np.random.default_rng(0)
    batch = {
        "frames_BNTHWC": rng.integers(0, 256, (2, 3, round(fps), 16, 16, 3), dtype=np.uint8),
        "audio_BL": rng.integers(-9000, 9000, (2, 30000), dtype=np.int16),
        "mel_start_BN": np.int32([[0, 16, 50], [0, 30, 44]]),
    }
    value, metrics = gradients(config, batch)
    assert np.isfinite(value) and metrics["rows"] > 0


@pytest.mark.slow
@rates(25.0, 12.0)
def test_latent_diffusion_takes_a_step(fps):
    config, rng = config_of("ldm", fps), np.random.default_rng(0)
    batch = {
        "audio_BPL": rng.integers(-9000, 9000, (2, 2, 20000), dtype=np.int16),
        "mel_frame_BT": np.tile(np.arange(64, dtype=np.int32), (2, 1)),
        "cavp_BLD": rng.standard_normal((2, round(fps), 8)).astype(np.float32),
        "context_s_BL": np.tile(np.arange(round(fps), dtype=np.float32) / fps, (2, 1)),
    }
    value, _ = gradients(config, batch)
    assert np.isfinite(value) and value > 0


def test_windows_and_the_unet_know_the_rate():
    config = config_of("ldm", 12.0)
    model = filled.model(config)
    assert model.unet.feature_s == pytest.approx(1 / 12)
    audio, video = specs.AudioSpec(**config.audio), specs.VideoSpec(**config.video)
    window = pipeline.window_of(model, config, audio, video)
    assert (window.num_features, window.num_columns) == (12, 8)
    assert window.num_features * window.feature_s == window.num_columns * window.column_s == 1.0


@pytest.mark.slow
@rates(12.0, 25.0)
def test_audio_of_a_video_has_its_length(tmp_path, fps):
    for stage in ("cavp", "ldm"):
        filled.save_run(tmp_path / stage, config_of(stage, fps))
    (video,) = tiny_foley.write_videos(tmp_path, (1.6,))
    clip = sample.load(tmp_path / "ldm")(video, steps=2)
    assert len(clip.audio) == 25600 and np.isfinite(clip.audio).all()
    filled.save_run(tmp_path / "slow_cavp", tiny_foley.cavp())
    with pytest.raises(ValueError, match=f"{fps:g} features a second, CAVP makes 4"):
        sample.load(tmp_path / "ldm", cavp=tmp_path / "slow_cavp")
