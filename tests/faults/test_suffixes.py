"""Tests what clips can be saved as: one check, in any case, that asks the muxer's own list."""

import pathlib

import numpy as np
import pytest

from foley_jax import sample
from foley_jax.inference import sounding_video
from foley_jax.media import audio as audio_io
from foley_jax.media import video as video_io
from foley_jax.media import writing
from tests.media import media_files

RATE = 16000
AUDIO = media_files.clicks([0.1], 0.5)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("suffixes")
    return media_files.write(folder / "silent.mp4", seconds=0.5, audio=False)


def _clips(video: pathlib.Path) -> dict[str, sample.Clip | sounding_video.SoundingClip]:
    """An audio clip beside an image, and a video with audio of our own."""
    mel_FT, frames = np.zeros((8, 20), np.float32), media_files.grey_frames(5, 16, 16)
    return {
        "Diff-Foley": sample.Clip(AUDIO, RATE, mel_FT, 0.1, {}, video),
        "MM-Diffusion": sounding_video.SoundingClip(frames, 10.0, AUDIO, RATE, "x"),
    }


@pytest.mark.parametrize("system", ["Diff-Foley", "MM-Diffusion"])
@pytest.mark.parametrize("suffix", [".wav", ".WAV", ".Wav", ".MP4", ".Mov", *writing.SUFFIXES])
def test_clips_are_saved_in_any_case(video, tmp_path, system, suffix):
    path = tmp_path / f"x{suffix}"
    _clips(video)[system].save(path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert abs(len(audio_io.load(path, RATE)) / RATE - 0.5) < 0.05
    assert video_io.probe(path).has_video == (suffix.lower() != ".wav")


@pytest.mark.parametrize("system", ["Diff-Foley", "MM-Diffusion"])
@pytest.mark.parametrize("name", ["x.webm", "x.avi", "x.mp3", "x.ts", "x", "x.wav.gif", ".wav"])
def test_what_cannot_be_written_is_said_with_all_that_can(video, tmp_path, system, name):
    with pytest.raises(ValueError, match=r"use \.wav or \.mp4, \.mov, \.m4v, \.mkv$"):
        _clips(video)[system].save(tmp_path / "new" / name)
    assert list(tmp_path.iterdir()) == []
