"""The models of the package: found by name, small enough, and in sync on scenes never seen."""

import json
from pathlib import Path

import av
import numpy as np
import pytest

from data_prep import scenes
from foley_jax import sample
from foley_jax.evaluation import __main__ as evaluation
from foley_jax.inference import boxed


def test_names_lead_to_whole_models():
    size = 0
    for name in boxed.MODELS:
        folder = Path(boxed.found(name))
        assert json.loads((folder / "config.json").read_text())["task"]
        size += (folder / "weights.safetensors").stat().st_size
    assert 1e6 < size <= 15e6
    card = (boxed.FOLDER / "README.md").read_text()
    assert all(f"`{name}`" in card for name in boxed.MODELS)


def test_a_folder_of_the_same_name_is_preferred(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert boxed.is_boxed("embedded")
    (tmp_path / "embedded").mkdir()
    assert not boxed.is_boxed("embedded") and boxed.found("embedded") == "embedded"
    assert boxed.found("runs/embedded") == "runs/embedded"


def test_unknown_names_are_told():
    with pytest.raises(ValueError, match="embedded:3_steps is none of .* embedded:4_steps"):
        sample.load("embedded:3_steps")


def test_it_is_in_sync_with_scenes_that_it_never_saw(tmp_path):
    args = ["--train=0", "--hard_train=0", "--test=4", "--hard_test=4", "--seed=9001"]
    scenes.main([str(tmp_path / "videos"), *args])
    folders = [str(tmp_path / "videos" / name) for name in ("test", "test_hard")]
    out = tmp_path / "out"
    args = ["--model=embedded:4_steps", "--steps=4", f"--out={out}"]
    assert sample.main([*folders, *args]) == 0
    args = ["--protocol=embedded", "--reference", *folders, f"--generated=ours={out}"]
    assert evaluation.main([*args, f"--out={tmp_path / 'report'}"]) == 0
    systems = json.loads((tmp_path / "report" / "metrics.json").read_text())["systems"]
    plain, hard = systems["plain: ours"], systems["hard: ours"]
    assert plain["f1@100ms"] > 0.9 and hard["f1@100ms"] > 0.7
    assert plain["shuffled_f1@100ms"] < 0.5 and hard["shuffled_f1@100ms"] < 0.5


@pytest.mark.slow
def test_the_joint_model_needs_no_video(tmp_path):
    (clip,) = sample.load("embedded:joint").generate(num_samples=1, sampler="dpm_solver", steps=4)
    assert np.isfinite(clip.audio).all() and np.abs(clip.audio).max() > 0.01
    clip.save(tmp_path / "clip.mp4")
    with av.open(tmp_path / "clip.mp4") as container:
        (video,), (audio,) = container.streams.video, container.streams.audio
        assert (video.width, video.height, audio.sample_rate) == (32, 32, 8000)
