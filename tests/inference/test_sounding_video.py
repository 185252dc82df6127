"""Sounding videos by Python and by command line, with a tiny filled model."""

import json

import av
import filled
import numpy as np
import pytest

from foley_jax import sample
from foley_jax.inference import sounding_video
from foley_jax.media import audio as audio_io
from tests.media import media_files
from tests.mm_diffusion import sounding_config

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    filled.save_run(folder / "mm", sounding_config.tiny())
    filled.save_run(folder / "large", sounding_config.tiny_upscaler())
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A silent video of 1 s, an audio clip of 0.6 s, and a file that is neither."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "pictures").mkdir()
    media_files.write(folder / "pictures" / "silent.mp4", seconds=1.0, audio=False)
    (folder / "pictures" / "broken.mp4").write_bytes(b"no video")
    waveform = media_files.clicks([0.3], 0.6, 8000)
    (folder / "sounds").mkdir()
    audio_io.write_wav(folder / "sounds" / "click.wav", waveform, 8000)
    return folder


def streams(path):
    """(seconds of image, seconds of audio, height) of a file."""
    with av.open(str(path)) as container:
        image, waveform = container.streams.video[0], container.streams.audio[0]
        seconds = [float(s.duration * s.time_base) for s in (image, waveform)]
        return *seconds, image.height


@pytest.mark.slow
def test_from_noise_to_a_folder_of_large_clips(runs, tmp_path, capsys):
    command = [f"--model={runs / 'mm'}", f"--super_resolution={runs / 'large'}"]
    command += ["--num_samples=2", "--steps=3", f"--out={tmp_path}"]
    assert sample.main(command) == 0
    for name in ("sample_0000", "sample_0001"):
        video_s, audio_s, height = streams(tmp_path / f"{name}.mp4")
        assert abs(video_s - 0.4) < 0.01 and abs(audio_s - 0.4) < 0.13 and height == 16
        assert (tmp_path / f"{name}.wav").exists() and (tmp_path / f"{name}.png").exists()
    assert (tmp_path / "contact_sheet.png").stat().st_size > 1000
    assert set(json.loads((tmp_path / "scores.json").read_text())["clips"]) == {
        "sample_0000",
        "sample_0001",
    }
    made = (tmp_path / "sample_0000.mp4").stat().st_mtime_ns
    assert sample.main(command) == 0  # nothing is made again
    assert (tmp_path / "sample_0000.mp4").stat().st_mtime_ns == made
    assert "2 of 2 clips done" in capsys.readouterr().out


@pytest.mark.slow
def test_audio_for_a_folder_in_which_one_file_is_broken(runs, files, tmp_path, capsys):
    command = [str(files / "pictures"), f"--model={runs / 'mm'}", "--method=replacement"]
    assert sample.main([*command, "--steps=2", f"--out={tmp_path}"]) == 1
    shown = capsys.readouterr()
    assert "1 of 2 clips done" in shown.out and "broken.mp4" in shown.err
    video_s, audio_s, height = streams(tmp_path / "silent.mp4")
    assert abs(video_s - audio_s) < 0.13 and height == 48  # the original video


@pytest.mark.slow
def test_python_interface(runs, files, tmp_path):
    model = sample.load(runs / "mm")
    assert isinstance(model, sounding_video.SoundingVideo)
    clip = model.video_for(files / "sounds" / "click.wav", method="replacement", steps=2)
    assert clip.frames_THWC.shape == (6, 8, 8, 3) and len(clip.audio) == 4800
    clip.save(tmp_path / "click.mp4")
    clip.plot(tmp_path / "click.png")
    assert abs(streams(tmp_path / "click.mp4")[0] - 0.6) < 0.01
    with pytest.raises(ValueError, match="cannot save a clip as '.gif'"):
        clip.save(tmp_path / "click.gif")
    with pytest.raises(ValueError, match="num_samples is 0"):
        model.generate(num_samples=0)


def test_silence_of_a_diverged_model_is_not_saved(tmp_path):
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    clip = sounding_video.SoundingClip(frames, 10.0, np.full(10, np.nan, np.float32), 8000, "x")
    with pytest.raises(ValueError, match="audio made for x is not finite"):
        clip.save(tmp_path / "x.wav")


def test_inputs_say_what_is_wanted(files):
    task, paths = sounding_video.work([files / "sounds"], 1)
    assert task == "video_for" and [path.name for path in paths] == ["click.wav"]
    assert sounding_video.work([files / "pictures"], 1)[0] == "audio_for"
    assert sounding_video.work([], 3)[0] == "generate"
    with pytest.raises(ValueError, match="1 of 3 inputs are audio"):
        sounding_video.work([files], 1)
    with pytest.raises(ValueError, match="num_samples is 4: it counts clips from noise"):
        sounding_video.work([files / "sounds"], 4)
    (files / "nothing").mkdir()
    with pytest.raises(FileNotFoundError, match="no video or audio files"):
        sounding_video.work([files / "nothing"], 1)


def test_networks_of_the_other_system_are_refused(runs):
    with pytest.raises(ValueError, match="is MM-Diffusion's, which has no cavp and no vocoder"):
        sample.load(runs / "mm", cavp="a", vocoder="b")
    with pytest.raises(ValueError, match="holds 'mm_diffusion'; wanted here: 'mm_super_resol"):
        sample.load(runs / "mm", super_resolution=runs / "mm")


def test_super_resolution_must_fit_the_model(runs, tmp_path):
    config = sounding_config.tiny_upscaler()
    config.data.degradation.height = 4
    filled.save_run(tmp_path / "odd", config)
    with pytest.raises(ValueError, match="enlarges images of 4x8, the model makes 8x8"):
        sample.load(runs / "mm", super_resolution=tmp_path / "odd")
