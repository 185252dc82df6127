"""From a silent mp4 to an mp4 with sound, with tiny random networks."""

import json

import av
import filled
from flax import nnx
import numpy as np
import pytest

from configs import cavp as cavp_config
from configs import ldm as ldm_config
from foley_jax import sample
from foley_jax.diff_foley import pipeline
from foley_jax.media import video as video_io
from foley_jax.training import checkpoint
from foley_jax.training import task as task_lib


def _save(folder, config):
    task = task_lib.resolve(config)
    model = filled.module(lambda: task.build(nnx.Rngs(0)))
    _, params, rest = nnx.split(model, task.trainable, ...)
    checkpoint.save_model(
        folder,
        config=config.to_dict(),
        params=nnx.to_pure_dict(params),
        rest=nnx.to_pure_dict(rest),
    )


def _tiny_cavp():
    config = cavp_config.get_config("demo")
    config.video.height = config.video.width = 16
    config.model.embed_dim = 8
    config.model.row_norm = False
    config.model.video = {"depths": (0, 1), "width": 4, "inflate": (False, True), "stem": "patch4"}
    config.model.audio = {"channels": (2, 4, 4, 4, 4), "stem": "patch4", "dropout": 0.0}
    return config


def _tiny_ldm():
    config = ldm_config.get_config("demo")
    config.data.window_frames, config.data.num_rows = 64, 4  # windows of one second
    config.cavp = "elsewhere/cavp"
    config.model.unet.update(
        {"model_channels": 8, "channel_mult": (1,), "num_groups": 4, "num_heads": 2}
    )
    config.model.unet.update({"attention_downsamples": (1,), "self_attention_downsamples": ()})
    config.model.unet.context_dim = config.model.conditioner.out_dim = 8
    config.model.conditioner.in_dim = 8
    config.model.autoencoder.update({"ch": 8, "num_groups": 4})
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    _save(folder / "cavp", _tiny_cavp())
    _save(folder / "ldm", _tiny_ldm())
    return folder


@pytest.fixture(scope="module")
def foley(runs):
    return sample.load(runs / "ldm")  # finds the CAVP run beside it


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Silent videos of 0.5, 2.3 and 3 s, and a file that is none."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for seconds in (0.5, 2.3, 3.0):
        frames = rng.integers(0, 255, (round(seconds * 10), 32, 48, 3), dtype=np.uint8)
        video_io.write_video(folder / f"v{seconds}.mp4", frames, 10)
    (folder / "broken.mp4").write_bytes(b"not a video")
    return folder


def _durations(path):
    with av.open(str(path)) as container:
        return [float(s.duration * s.time_base) for s in container.streams]


def test_command_line_makes_sound_for_a_folder_and_names_what_failed(
    runs, videos, tmp_path, capsys
):
    arguments = [str(videos), f"--model={runs / 'ldm'}", f"--out={tmp_path}", "--steps=2"]
    assert sample.main(arguments) == 1
    assert "broken.mp4" in capsys.readouterr().err
    for seconds in (0.5, 2.3, 3.0):
        picture_s, sound_s = _durations(tmp_path / f"v{seconds}.mp4")
        assert abs(picture_s - sound_s) <= 0.05
        assert abs(picture_s - seconds) <= 0.05
        assert (tmp_path / f"v{seconds}.png").stat().st_size > 1000
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert sorted(scores["clips"]) == ["v0.5", "v2.3", "v3.0"]
    before = (tmp_path / "v3.0.wav").stat().st_mtime_ns
    assert sample.main(arguments) == 1  # the second run makes nothing again
    assert (tmp_path / "v3.0.wav").stat().st_mtime_ns == before


def test_seed_decides_the_sound_and_the_batch_does_not(foley, videos):
    alone = foley(videos / "v2.3.mp4", seed=1, steps=2)
    assert len(alone.audio) == round(2.3 * alone.sample_rate)
    sources = [foley.read(videos / f"v{s}.mp4") for s in (3.0, 2.3)]
    together = foley.model.generate(sources, pipeline.Settings(seed=1, steps=2))
    np.testing.assert_allclose(together[1][0].audio, alone.audio, atol=1e-4)
    other = foley(videos / "v2.3.mp4", seed=2, steps=2)
    assert np.abs(other.mel_FT - alone.mel_FT).max() > 1e-3


def test_presets_differ_in_the_null_condition(foley, videos):
    made = [
        foley(videos / "v0.5.mp4", steps=2, preset=preset).mel_FT
        for preset in ("default", "official")
    ]
    assert np.abs(made[0] - made[1]).max() > 1e-4


def test_several_samples_come_back_best_first(foley, videos):
    source = foley.read(videos / "v3.0.mp4")
    settings = pipeline.Settings(steps=2, num_samples=3, keep_best=3)
    results = foley.model.generate([source], settings)[0]
    assert len(results) == 3
    assert not np.allclose(results[0].audio, results[1].audio)
    scores = np.array([r.scores["cavp_similarity"] for r in results])
    assert (np.diff(np.nan_to_num(scores)) <= 0).all()


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="preset is 'best'"):
        pipeline.Settings(preset="best")
    with pytest.raises(ValueError, match="at least 2"):
        pipeline.Settings(steps=1)


def test_missing_model_is_one_line_that_says_what_to_do(videos, tmp_path, capsys):
    assert sample.main([str(videos), f"--model={tmp_path / 'none'}"]) == 1
    error = capsys.readouterr().err
    assert "none" in error and "foley_jax.main" in error and error.count("\n") == 1


def test_a_clip_is_not_saved_under_a_strange_suffix(foley, videos, tmp_path):
    clip = foley(videos / "v0.5.mp4", steps=2)
    with pytest.raises(ValueError, match="use .wav or .mp4"):
        clip.save(tmp_path / "sound.mp3")
