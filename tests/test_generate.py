"""Many audio clips for every video: the right ones, once each, on any number of devices."""

import dataclasses
import json
import os
from pathlib import Path
import socket
import subprocess
import sys

import numpy as np
import pytest
import tiny_foley

from foley_jax import generate, sample
from foley_jax.diff_foley.sampling import pipeline
from foley_jax.inference import many, process_group
from foley_jax.media import audio as audio_io
from foley_jax.media import level
from foley_jax.runtime import run as run_lib
from foley_jax.training.checkpointing import run_directory

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = Path(__file__).parents[1]
SETTINGS = pipeline.Settings(steps=2)
# The mels of other batches and devices differ by what float32 rounds. Their audio clips may differ
# more: the first phases of Griffin-Lim jump where rounding tips a comparison.
ATOL = 1e-5


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tiny_foley.save_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def foley(runs):
    return sample.load(runs / "ldm")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Silent videos of about a second, all with one window."""
    folder = tmp_path_factory.mktemp("videos")
    tiny_foley.write_videos(folder, (0.9, 1.0, 0.8))
    return folder


def _run(*args, **options):
    """The report, and {(video, index of the sample): clip}."""
    clips = {}

    def add(self, name, video, takes, add=many.SeedFolders.add):
        clips.update({(name, take.index): take.clip for take in takes})
        add(self, name, video, takes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many.SeedFolders, "add", add)
        return generate.run(*args, **options), clips


@pytest.fixture(scope="module")
def usual(foley, videos, tmp_path_factory):
    """Two samples of three videos, in groups of two videos."""
    out = tmp_path_factory.mktemp("out")
    return _run(foley, [videos], out, 2, settings=SETTINGS, group=4)


def _entries(folder):
    return json.loads((folder / "scores.json").read_text())["clips"]


@pytest.fixture
def drawn(foley, monkeypatch):
    """(video, sample) of every audio clip that the model makes."""
    made, draft = [], foley.model.draft

    def recorded(sources, settings, draws):
        made.extend((s.path.stem, draw.sample) for s, own in zip(sources, draws) for draw in own)
        return draft(sources, settings, draws)

    monkeypatch.setattr(foley.model, "draft", recorded)
    return made


def _written(clip):
    """Returns what files hold of a clip: within full scale, by one gain."""
    return level.within_full_scale(clip.audio)[0]


@pytest.mark.slow
def test_sample_k_is_what_the_model_gives_for_sample_k(foley, videos, usual):
    report, clips = usual
    assert [folder.name for folder in report.folders] == ["seed0_sample0", "seed0_sample1"]
    for folder in report.folders:
        files = sorted(path.name for path in folder.iterdir())
        assert files == ["scores.json", "v0.8.wav", "v0.9.wav", "v1.0.wav"]
    for (name, k), clip in clips.items():
        both = foley(videos / f"{name}.mp4", steps=2, num_samples=2, keep_best=2)
        alone = next(clip for clip in both if clip.sample == k)
        np.testing.assert_allclose(clip.mel_FT, alone.mel_FT, atol=ATOL)
        assert len(clip.audio) == len(alone.audio) == round(float(name[1:]) * 16000)
        written = audio_io.load(report.folders[k] / f"{name}.wav", 16000)
        np.testing.assert_allclose(written, _written(clip), atol=1.01 / 2**15)
    assert np.abs(clips["v1.0", 0].mel_FT - clips["v1.0", 1].mel_FT).max() > 0.01


def test_in_batches_of_one_it_is_the_same_to_the_bit(foley, videos, tmp_path):
    settings = pipeline.Settings(steps=2, seed=5)
    made = generate.run(foley, [videos / "v1.0.mp4"], tmp_path, 1, settings=settings, group=1)
    foley(videos / "v1.0.mp4", seed=5, steps=2).save(tmp_path / "alone.wav")
    assert made.folders == [tmp_path / "seed5_sample0"]
    written = tmp_path / "seed5_sample0" / "v1.0.wav"
    assert (tmp_path / "alone.wav").read_bytes() == written.read_bytes()


def test_features_are_computed_once_for_all_samples(foley, videos, tmp_path, monkeypatch):
    encoded, encode = [], foley.model._encode_video
    monkeypatch.setattr(
        foley.model, "_encode_video", lambda frames: encoded.append(len(frames)) or encode(frames)
    )
    generate.run(foley, [videos / "v1.0.mp4"], tmp_path, 4, settings=SETTINGS)
    assert encoded == [1]


def test_what_is_there_is_not_made_again(foley, videos, tmp_path, drawn):
    class Killed(BaseException):
        pass

    count = 0

    def add(self, name, video, clips, add=many.SeedFolders.add):
        nonlocal count
        count += 1
        if count == 2:
            raise Killed
        add(self, name, video, clips)

    def again(samples):
        drawn.clear()
        generate.run(foley, [videos], tmp_path, samples, settings=SETTINGS, group=4)
        return sorted(drawn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many.SeedFolders, "add", add)
        with pytest.raises(Killed):
            again(2)
    assert not (tmp_path / "seed0_sample0/scores.json").exists()
    assert again(2) == [(name, sample) for name in ("v0.9", "v1.0") for sample in (0, 1)]
    assert again(2) == []
    (tmp_path / "seed0_sample1/v1.0.wav").unlink()
    assert again(2) == [("v1.0", 1)]
    assert again(3) == [(name, 2) for name in ("v0.8", "v0.9", "v1.0")]
    assert len(_entries(tmp_path / "seed0_sample0")) == 3
    speed = (tmp_path / "speed.json").read_bytes()
    assert again(3) == [] and (tmp_path / "speed.json").read_bytes() == speed


def test_command_line_writes_runs_that_sample_would_continue(
    runs, foley, videos, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sample, "load", lambda model, **networks: foley)
    mixed = tmp_path / "in"
    mixed.mkdir()
    for name in ("v0.9.mp4", "v1.0.mp4"):
        (mixed / name).write_bytes((videos / name).read_bytes())
    (mixed / "broken.mp4").write_bytes(b"not a video")
    common = [str(mixed), f"--model={runs / 'ldm'}", "--steps=2"]
    out = tmp_path / "out"
    assert generate.main([*common, "--samples=2", "--videos", f"--out={out}"]) == 1
    printed = capsys.readouterr()
    assert "broken.mp4" in printed.err and "without vocoder" in printed.out
    assert list(json.loads((out / "failures.json").read_text())) == [str(mixed / "broken.mp4")]
    assert (out / "seed0_sample1/v1.0.mp4").stat().st_size > 1000
    (mixed / "broken.mp4").unlink()
    first = out / "seed0_sample0"
    written = (first / "v1.0.wav").stat().st_mtime_ns
    assert sample.main([*common, f"--out={first}"]) == 0
    assert (first / "v1.0.wav").stat().st_mtime_ns == written  # it was there
    assert generate.main([*common, "--samples=2", f"--out={out}"]) == 0
    assert json.loads((out / "failures.json").read_text()) == {}


def test_speed_has_every_stage(usual):
    report, _ = usual
    speed = report.speed
    stages = set(speed["seconds_per_clip"])
    of_others = {"super-resolution"}  # MM-Diffusion's
    assert stages == {"wall", "decode", "write", *run_lib.STAGES} - of_others
    assert (speed["clips"], speed["clips_counted"], speed["processes"]) == (6, 2, 1)
    assert speed["first_group_left_out"] and speed["compile_s"] == 0.0
    assert speed["sound_s_per_clip"] == pytest.approx(0.9)
    assert all(seconds > 0 for seconds in speed["seconds_per_clip"].values())
    stored = json.loads((report.folders[0].parent / "speed.json").read_text())
    assert stored == json.loads(json.dumps(speed))


@pytest.mark.slow
def test_eight_devices_make_the_same_audio(runs, videos, usual, tmp_path):
    many = sample.load(runs / "ldm", devices=8)
    report, clips = _run(many, [videos], tmp_path, 2, settings=SETTINGS, group=4)
    assert report.speed["devices"] == "8 x cpu"
    assert clips.keys() == usual[1].keys()
    for key, alone in usual[1].items():
        np.testing.assert_allclose(clips[key].mel_FT, alone.mel_FT, atol=ATOL)


@pytest.mark.slow
@pytest.mark.parametrize("interval", [1, 2], ids=["every_step", "kept_features"])
def test_eight_devices_guide_alike(runs, videos, tmp_path, interval):
    one, eight = (
        sample.load(runs / "ldm", classifier=runs / "alignment", devices=devices)
        for devices in (1, 8)
    )
    settings = dataclasses.replace(SETTINGS, alignment=2000.0, cache_interval=interval)
    report, clips = _run(eight, [videos], tmp_path, 2, settings=settings, group=4)
    assert report.speed["devices"] == "8 x cpu"
    names = ("v0.9", "v1.0")
    sources = [one.read(videos / f"{name}.mp4") for name in names]
    draws = [[pipeline.NoiseSeed(0, 0), pipeline.NoiseSeed(0, 1)]] * 2
    for draft in one.model.draft(sources, settings, draws):
        clip = clips[draft.source.path.stem, draft.draw.sample]
        frames = clip.mel_FT.shape[1]
        np.testing.assert_allclose(clip.mel_FT, draft.mel_FT[:, :frames], atol=ATOL)
        assert abs(clip.scores["alignment"] - draft.alignment) < ATOL


def _alike(a, b):
    return np.corrcoef(a, b)[0, 1]


@pytest.mark.slow
def test_two_processes_share_the_videos(runs, videos, usual, tmp_path):
    report, clips = usual
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    command = [sys.executable, "-m", "foley_jax.generate", str(videos), "--distributed"]
    command += [f"--model={runs / 'ldm'}", "--samples=2", "--steps=2", f"--out={tmp_path}"]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
    }
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, "JAX_PROCESS_ID": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for index in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0].decode() for process in processes]
    finally:
        for process in processes:  # a hanging one would slow down all tests to come
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "seconds per clip" in outputs[0] and "seconds per clip" not in outputs[1]
    speed = json.loads((tmp_path / "speed.json").read_text())
    assert (speed["clips"], speed["processes"]) == (6, 2)
    folders = {"seed0_sample0", "seed0_sample1"}
    assert {p.name for p in tmp_path.iterdir()} == {*folders, "speed.json", "failures.json"}
    for alone in report.folders:
        folder = tmp_path / alone.name
        assert sorted(_entries(folder)) == ["v0.8", "v0.9", "v1.0"]
        assert not list(folder.glob("*.jsonl"))
    for (name, k), clip in clips.items():
        made = audio_io.load(tmp_path / f"seed0_sample{k}" / f"{name}.wav", 16000)
        assert _alike(made, _written(clip)) > 0.99
        assert _alike(made, _written(clips[name, 1 - k])) < 0.5


def test_a_process_that_stops_stops_the_others(tmp_path):
    first, second = (process_group.ProcessGroup(tmp_path, index, 2) for index in range(2))
    second.__exit__(OSError, OSError("disk full"), None)
    with pytest.raises(RuntimeError, match="process 1 of 2 stopped: OSError: disk full"):
        first.gather({})
    assert first.share("abcde") == list("ace") and second.share("abcde") == list("bd")


def test_models_without_videos_are_told_where_to_go(tmp_path, capsys):
    run_directory.save_model(
        tmp_path / "mm", config={"task": "mm_diffusion"}, params={"a": np.ones(1)}, rest={}
    )
    assert generate.main([str(tmp_path), f"--model={tmp_path / 'mm'}"]) == 1
    assert "foley_jax.sample --model=" in capsys.readouterr().err


def test_settings_out_of_range_are_refused(foley, videos, tmp_path):
    with pytest.raises(ValueError, match="samples is 0"):
        generate.run(foley, [videos], tmp_path, 0)
    with pytest.raises(FileNotFoundError, match="no video files found in"):
        generate.run(foley, [tmp_path], tmp_path / "out", 1)
