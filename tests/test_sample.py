"""From a silent mp4 to an mp4 with audio, with tiny random networks."""

import functools
import json

import av
import filled
from flax import nnx
import jax
import numpy as np
import pytest
import tiny_foley

from foley_jax import sample
from foley_jax.diff_foley.sampling import pipeline
from foley_jax.inference import load_foley, official
from foley_jax.interop import registry
from foley_jax.media import video as video_io
from foley_jax.runtime import seed_keys
from tests.media import media_files

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tiny_foley.save_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def foley(runs):
    return sample.load(runs / "ldm")  # finds the CAVP run beside it


@pytest.fixture(scope="module")
def guided(runs):
    return sample.load(runs / "ldm", classifier=runs / "alignment")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Silent videos of 0.5, 2.3 and 3 s, and a file that is none."""
    folder = tmp_path_factory.mktemp("videos")
    tiny_foley.write_videos(folder, (0.5, 2.3, 3.0))
    (folder / "broken.mp4").write_bytes(b"not a video")
    return folder


def _durations(path):
    with av.open(str(path)) as container:
        return [float(s.duration * s.time_base) for s in container.streams]


@pytest.mark.slow
def test_command_line_makes_audio_for_a_folder_and_names_what_failed(
    runs, videos, tmp_path, capsys
):
    arguments = [str(videos), f"--model={runs / 'ldm'}", f"--out={tmp_path}", "--steps=2"]
    assert sample.main(arguments) == 1
    assert "broken.mp4" in capsys.readouterr().err
    for seconds in (0.5, 2.3, 3.0):
        video_s, audio_s = _durations(tmp_path / f"v{seconds}.mp4")
        assert abs(video_s - audio_s) <= 0.05
        assert abs(video_s - seconds) <= 0.05
        assert (tmp_path / f"v{seconds}.png").stat().st_size > 1000
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert sorted(scores["clips"]) == ["v0.5", "v2.3", "v3.0"]
    before = (tmp_path / "v3.0.wav").stat().st_mtime_ns
    assert sample.main(arguments) == 1  # the second run makes nothing again
    assert (tmp_path / "v3.0.wav").stat().st_mtime_ns == before


def test_seed_decides_the_audio_and_the_batch_does_not(foley, videos):
    alone = foley(videos / "v2.3.mp4", seed=1, steps=2)
    sources = [foley.read(videos / f"v{s}.mp4") for s in (3.0, 2.3)]
    together = foley.model.generate(sources, pipeline.Settings(seed=1, steps=2))[1][0]
    assert len(alone.audio) == len(together.audio) == round(2.3 * alone.sample_rate)
    np.testing.assert_allclose(together.mel_FT, alone.mel_FT, atol=1e-5)
    other = foley(videos / "v2.3.mp4", seed=2, steps=2)
    assert np.abs(other.mel_FT - alone.mel_FT).max() > 1e-3


@pytest.mark.slow
def test_kept_features_change_the_audio_and_no_deeper_than_the_network(
    foley, runs, videos, tmp_path, capsys
):
    exact, near = (
        foley(videos / "v0.5.mp4", steps=3, cache_interval=interval).mel_FT for interval in (1, 2)
    )
    assert np.abs(near - exact).max() > 1e-4
    arguments = [str(videos), f"--model={runs / 'ldm'}", f"--out={tmp_path}"]
    assert sample.main([*arguments, "--cache_interval=2", "--cache_depth=50"]) == 1
    assert "cache depth is 50" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.slow
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


@pytest.mark.slow
def test_classifier_guides_and_scores(foley, guided, videos):
    video = videos / "v0.5.mp4"
    plain = foley(video, steps=2)
    off, on = (guided(video, steps=2, alignment=scale) for scale in (0.0, 2000.0))
    np.testing.assert_array_equal(off.mel_FT, plain.mel_FT)
    assert np.abs(on.mel_FT - off.mel_FT).max() > 1e-3
    assert "alignment" not in plain.scores
    assert 0 < off.scores["alignment"] < on.scores["alignment"] < 1


def test_official_preset_is_the_notebook(guided, videos):
    """Side-by-side windows, each one hop short; a rest of less than a window is dropped."""
    clip = guided(videos / "v2.3.mp4", steps=2, preset="official")
    assert clip.mel_FT.shape[1] == 128 and len(clip.audio) == round(2.3 * 16000)
    length = 2 * 63 * 250  # two windows of 64 mel frames
    assert np.abs(clip.audio[length - 50 : length]).max() > 0
    assert not clip.audio[length:].any()


def test_plms_with_a_classifier_is_refused(guided, videos):
    with pytest.raises(ValueError, match="give alignment=0"):
        guided(videos / "v0.5.mp4", sampler="plms")


def test_official_drops_the_classifier_at_guidance_1_with_dpm_solver():
    settings = functools.partial(pipeline.Settings, guidance=1.0)
    assert not settings(preset="official").aligned(True)
    assert settings(preset="official", sampler="ddim").aligned(True)
    assert settings().aligned(True) and not settings().aligned(False)


def test_best_first_by_both_scores():
    def result(cavp, alignment):
        scores = {"cavp_similarity": cavp, "alignment": alignment}
        return pipeline.Result(np.zeros(1), np.zeros((1, 1)), scores)

    results = [result(0.1, 0.2), result(0.9, 0.5), result(0.5, 0.9), result(0.2, 0.1)]
    assert pipeline.ranked(results) == [results[2], results[1], results[0], results[3]]
    silent = [result(np.nan, 0.1), result(np.nan, 0.3)]
    assert pipeline.ranked(silent) == silent[::-1]


def test_noise_of_a_column_does_not_depend_on_the_length():
    short, long = (seed_keys.block_keys(3, "clip", 1, n) for n in (2, 9))
    np.testing.assert_array_equal(short, long[:2])
    assert not np.array_equal(seed_keys.block_keys(3, "clip", 0, 1), short[:1])


def test_any_rate_size_and_rotation(foley, tmp_path):
    """One second each: so one program serves them all."""
    frames = media_files.grey_frames(24, 50, 34)
    video_io.write_video(tmp_path / "fast.mp4", frames, 24)
    video_io.write_video(tmp_path / "slow.mkv", frames[:3], 3)
    video_io.write_video(tmp_path / "turned.mp4", frames, 24)
    media_files.rotate_mp4(tmp_path / "turned.mp4", 1)
    media_files.write_at(tmp_path / "vfr.mp4", [0.0, 0.1, 0.5, 0.6, 0.967], frames[:5])
    for path in sorted(tmp_path.iterdir()):
        clip = foley(path, steps=2)
        clip.save(tmp_path / f"out_{path.stem}.mp4")
        video_s, audio_s = _durations(tmp_path / f"out_{path.stem}.mp4")
        assert abs(video_s - audio_s) <= 0.05 and np.isfinite(clip.audio).all(), path


@pytest.mark.slow
def test_a_folder_of_official_files_is_converted_while_loading(monkeypatch, tmp_path):
    """With tiny networks in place of the official ones; the full size is a slow test."""
    kinds = registry.kinds()
    configs = {
        load_foley.CAVP: tiny_foley.cavp(),
        load_foley.LDM: tiny_foley.ldm(),
        load_foley.GUIDANCE: tiny_foley.alignment(),
        load_foley.EVALUATION: tiny_foley.alignment(),
    }
    configs[load_foley.EVALUATION].loss.noised = False
    names = {kinds[kind].file_names[0]: kind for kind in configs}
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr(registry, "recognise", lambda path: names[path.name])
    monkeypatch.setattr(
        official, "run_config", lambda kind: configs[kind].copy_and_resolve_references()
    )
    monkeypatch.setattr(registry, "load_torch", lambda kind, path: filled.model(configs[kind]))
    model = sample.load(tmp_path).model
    assert model.classifier is not None and model.scorer is not None
    want = jax.tree.leaves(nnx.to_pure_dict(nnx.state(filled.model(configs[load_foley.LDM]))))
    for got, leaf in zip(jax.tree.leaves(model.ldm.state), want, strict=True):
        np.testing.assert_array_equal(got, leaf)
    (tmp_path / "cavp_epoch66.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match="cavp_epoch66.ckpt"):
        sample.load(tmp_path)


@pytest.mark.slow
def test_networks_that_do_not_fit_are_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="wanted here: 'alignment'"):
        sample.load(runs / "ldm", classifier=runs / "cavp")
    with pytest.raises(ValueError, match="at most one of each"):
        sample.load(runs / "ldm", classifier=[runs / "alignment", runs / "alignment"])


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="keep_best is 2"):
        pipeline.Settings(keep_best=2)
    with pytest.raises(ValueError, match="sampler is 'euler'"):
        pipeline.Settings(sampler="euler")
    with pytest.raises(ValueError, match="preset is 'best'"):
        pipeline.Settings(preset="best")
    with pytest.raises(ValueError, match="at least 1"):
        pipeline.Settings(steps=0)


def test_missing_model_is_one_line_that_says_what_to_do(videos, tmp_path, capsys):
    assert sample.main([str(videos), f"--model={tmp_path / 'none'}"]) == 1
    error = capsys.readouterr().err
    assert "none" in error and "foley_jax.main" in error and error.count("\n") == 1


def test_a_clip_is_not_saved_under_a_strange_suffix(foley, videos, tmp_path):
    clip = foley(videos / "v0.5.mp4", steps=2)
    with pytest.raises(ValueError, match="use .wav or .mp4"):
        clip.save(tmp_path / "sound.mp3")


def test_hub_files_are_found_by_name_and_classifiers_may_be_missing(monkeypatch, tmp_path):
    there = ["ldm_epoch240.ckpt", "cavp_epoch66.ckpt", "eval_classifier.ckpt"]

    def fetch(source, *, file_names):
        assert source == "hub:somebody/foley"
        if file_names[0] not in there:
            raise ValueError(f"no {file_names[0]} there")
        return tmp_path / file_names[0]

    monkeypatch.setattr(load_foley.hub, "fetch", fetch)
    ldm, cavp, classifiers = load_foley._official_folder("hub:somebody/foley")
    assert (ldm.name, cavp.name) == ("ldm_epoch240.ckpt", "cavp_epoch66.ckpt")
    assert [path.name for path in classifiers] == ["eval_classifier.ckpt"]
    there.remove("cavp_epoch66.ckpt")
    with pytest.raises(ValueError, match="no cavp_epoch66.ckpt there"):
        load_foley._official_folder("hub:somebody/foley")
