"""A clip beyond full scale keeps its shape: one gain for all its files, told in scores.json."""

import types
import warnings

import numpy as np
import pytest
import soundfile

from foley_jax import sample
from foley_jax.diff_foley.sampling import pipeline
from foley_jax.inference import jobs, score_file, sounding_video
from foley_jax.media import audio, container, level, specs, video
from tests.media import media_files

RATE = 16000
LOUD = 18.6


def tone(peak: float, seconds: float = 1.0) -> np.ndarray:
    time_s = np.arange(round(seconds * RATE)) / RATE
    wave = np.sin(2 * np.pi * 440 * time_s) * np.hanning(len(time_s))
    return (peak * wave / np.abs(wave).max()).astype(np.float32)


def likeness(heard_L: np.ndarray, made_L: np.ndarray) -> float:
    """Correlation: 1 where only the level differs."""
    n = min(len(heard_L), len(made_L))
    return float(np.corrcoef(heard_L[:n], made_L[:n])[0, 1])


def foley_clip(audio_L, video_path="a.mp4", **scores) -> sample.Clip:
    model = types.SimpleNamespace(audio=specs.AudioSpec())
    result = pipeline.Result(audio_L, np.zeros((128, 4)), scores)
    return sample.Foley(model, "runs/x").clip(video_path, result)


def sounding_clip(audio_L) -> sounding_video.SoundingClip:
    return sounding_video.SoundingClip(media_files.grey_frames(10, 32, 32), 10, audio_L, RATE, "a")


@pytest.mark.parametrize("kind", ["foley", "sounding"])
def test_wav_and_mp4_have_one_level_and_no_clipping(tmp_path, kind):
    loud_L = tone(LOUD)
    path = media_files.write(tmp_path / "a.mp4", seconds=1.0, times_s=(), audio=False)
    clip = foley_clip(loud_L, path) if kind == "foley" else sounding_clip(loud_L)
    with pytest.warns(container.MediaWarning, match="25.3905 dB quieter"):  # 20 log10(18.6)
        clip.save(tmp_path / "out.wav")
        clip.save(tmp_path / "out.mp4")
    wav_L, mp4_L = (audio.load(tmp_path / f"out.{s}", RATE) for s in ("wav", "mp4"))
    for heard_L in (wav_L, mp4_L):
        assert likeness(heard_L, loud_L) > 0.999  # clipped: 0.90
    assert np.abs(wav_L).max() == pytest.approx(1.0, abs=1e-4)
    # what AAC itself does to a level, it does to that of a clip as loud as the wav
    like = foley_clip(wav_L, path) if kind == "foley" else sounding_clip(wav_L)
    like.save(tmp_path / "like.mp4")
    like_L = audio.load(tmp_path / "like.mp4", RATE)
    assert likeness(mp4_L, like_L) > 0.999
    assert np.dot(mp4_L, like_L) / np.dot(like_L, like_L) == pytest.approx(1.0, abs=2e-3)
    assert clip.audio is loud_L


@pytest.mark.parametrize("make", [foley_clip, sounding_clip])
def test_scores_tell_the_gain(tmp_path, make):
    folder = jobs.Folder(tmp_path, {})
    folder.add("loud", tmp_path / "loud.mp4", [make(tone(LOUD)), make(tone(2.0))])
    folder.add("soft", tmp_path / "soft.mp4", [make(tone(1.0))])
    folder.close()
    stored = score_file.ScoreFile(tmp_path, {}).done
    assert stored["loud"]["gain_db"] == pytest.approx(-20 * np.log10(LOUD), abs=1e-3)
    assert stored["loud"]["others"][0]["gain_db"] == pytest.approx(-6.02, abs=0.01)
    assert "gain_db" not in stored["soft"]


def test_scores_of_a_model_stay():
    assert foley_clip(tone(0.5), alignment=0.25).scores == {"alignment": 0.25}
    assert foley_clip(np.full(8, np.nan, np.float32), alignment=0.2).scores == {"alignment": 0.2}


def test_one_warning_for_a_clip(tmp_path):
    clip = sounding_clip(tone(LOUD))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for name in ("a.wav", "b.wav", "a.mp4", "b.mp4"):
            clip.save(tmp_path / name)
    assert [str(w.message).split(":")[0] for w in told] == ["a"]


@pytest.mark.parametrize("peak", [0.0, 0.3, 32767 / 32768, 1.0])
def test_what_is_within_full_scale_is_written_as_it_is(tmp_path, peak):
    audio_L = tone(1.0) * np.float32(peak)
    assert level.within_full_scale(audio_L)[0] is audio_L
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audio.write_wav(tmp_path / "a.wav", audio_L, RATE)
    soundfile.write(tmp_path / "b.wav", audio.to_pcm16(audio_L), RATE, subtype="PCM_16")
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


@pytest.mark.parametrize("peak", [1.0 + 1e-6, 1.5, LOUD, 1e30])
def test_gain_leaves_nothing_to_clip(peak):
    gain = level.full_scale_gain(peak)
    assert 0.99996 < gain * peak <= 1.0 and level.decibels(gain) < 0
    # the peak alone is enough, for audio that is written in pieces
    audio_L = tone(1.0).astype(np.float64) * peak
    found_L, found = level.within_full_scale(audio_L)
    assert found == pytest.approx(gain) and np.abs(found_L).max() <= 1.0
    steps = np.abs(np.diff(audio.to_pcm16(found_L).astype(int)))
    assert steps.max() < 32767 * 2 * np.pi * 440 / RATE * 1.1  # nothing wraps


def test_direct_writing_says_so_too(tmp_path):
    frames_THWC = media_files.grey_frames(10, 32, 32)
    silent = media_files.write(tmp_path / "in.mp4", seconds=1.0, times_s=(), audio=False)
    loud_L = tone(LOUD)
    for write in (
        lambda path: audio.write_wav(path.with_suffix(".wav"), loud_L, RATE),
        lambda path: video.write_video(path, frames_THWC, 10, audio=loud_L, sample_rate_hz=RATE),
        lambda path: video.mux(silent, loud_L, RATE, path),
    ):
        with pytest.warns(container.MediaWarning, match="out.* dB quieter"):
            write(tmp_path / "out.mp4")
    for name in ("out.wav", "out.mp4"):
        assert likeness(audio.load(tmp_path / name, RATE), loud_L) > 0.999


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(tmp_path, bad):
    audio_L = tone(0.5)
    audio_L[100] = bad
    with pytest.raises(ValueError, match="finite"):
        audio.write_wav(tmp_path / "a.wav", audio_L, RATE)
    with pytest.raises(ValueError, match="finite"):
        video.write_video(
            tmp_path / "a.mp4", media_files.grey_frames(2), 10, audio=audio_L, sample_rate_hz=RATE
        )
    assert list(tmp_path.iterdir()) == []
