"""Audio from files: placed by its timestamps, at the right level and pitch."""

from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from foley_jax.media import audio, video
from tests.media import media_files


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("rate_hz", [16000, 44100])
def test_clicks_come_back_when_they_were_made(tmp_path, suffix, rate_hz):
    path = media_files.write(tmp_path / f"a{suffix}", rate_hz=rate_hz)
    audio_L = audio.load(path, 16000)
    assert abs(media_files.onset_s(audio_L) - 0.5) < 0.003
    assert abs(media_files.onset_s(audio_L[16000:]) - 0.25) < 0.003


def test_start_and_duration_give_that_stretch(tmp_path):
    path = media_files.write(tmp_path / "a.mp4", seconds=4, times_s=(0.5, 1.25, 3.0))
    part = audio.load(path, 16000, start_s=1.0, duration_s=0.5)
    assert part.shape == (8000,) and part.dtype == np.float32
    assert abs(media_files.onset_s(part) - 0.25) < 0.003
    whole = audio.load(path, 16000)
    late = audio.load(path, 16000, start_s=2.5, duration_s=1.0)
    np.testing.assert_allclose(late, whole[40000:56000], atol=1e-6)


def test_past_the_end_is_silence(tmp_path):
    path = media_files.write(tmp_path / "a.mp4")
    late = audio.load(path, 16000, start_s=5.0, duration_s=0.5)
    assert late.shape == (8000,) and not late.any()


def test_late_track_begins_with_silence(tmp_path):
    path = media_files.write_two_starts(tmp_path / "late.mkv", 0.0, 0.3)
    audio_L = audio.load(path, media_files.RATE_HZ)
    first = int(np.flatnonzero(audio_L)[0])
    assert abs(first / media_files.RATE_HZ - 0.3) <= 0.001  # Matroska's clock
    np.testing.assert_allclose(audio_L[first:], 8000 / 32768, atol=1e-7)


def test_second_zero_is_where_the_clip_starts(tmp_path):
    path = media_files.write_two_starts(tmp_path / "both_late.mkv", 0.5, 0.8)
    first = int(np.flatnonzero(audio.load(path, media_files.RATE_HZ))[0])
    assert abs(first / media_files.RATE_HZ - 0.3) <= 0.001


def test_gap_in_the_track_stays_a_gap(tmp_path):
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000)
        stream.layout = "mono"
        for start in (0, 12000):
            chunk = np.full((1, 4000), 10000, np.int16)
            frame = av.AudioFrame.from_ndarray(chunk, format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    audio_L = audio.load(path, 16000)
    assert len(audio_L) == 16000
    np.testing.assert_array_equal(audio_L != 0, np.arange(16000) % 12000 < 4000)


def test_stereo_is_averaged_and_resampled(tmp_path):
    path = tmp_path / "stereo.wav"
    time_L = np.arange(44100) / 44100
    left = 0.6 * np.sin(2 * np.pi * 1000 * time_L)
    soundfile.write(path, np.stack([left, np.zeros_like(left)], axis=1), 44100, subtype="FLOAT")
    audio_L = audio.load(path, 16000)
    wanted = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    assert len(audio_L) == 16000
    np.testing.assert_allclose(audio_L[200:-200], wanted[200:-200], atol=2e-3)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_sample_format_has_the_same_scale(tmp_path, subtype):
    path = tmp_path / "a.wav"
    wanted = np.linspace(-0.9, 0.9, 1000)
    soundfile.write(path, wanted, 16000, subtype=subtype)
    np.testing.assert_allclose(audio.load(path, 16000), wanted, atol=1.01 / 128)


def test_video_without_audio_says_so(tmp_path):
    path = media_files.write(tmp_path / "silent.mp4", audio=False)
    with pytest.raises(video.MediaError, match="no audio track") as caught:
        audio.load(path, 16000)
    assert caught.value.reason == "no_audio"


def test_pcm16_round_trip_and_clipping():
    pcm_L = np.array([-32768, -1, 0, 1, 32767], np.int16)
    np.testing.assert_array_equal(audio.to_pcm16(audio.from_pcm16(pcm_L)), pcm_L)
    np.testing.assert_array_equal(
        audio.to_pcm16(np.array([2.0, -2.0])), np.array([32767, -32768], np.int16)
    )
    with pytest.raises(ValueError, match="wanted int16"):
        audio.from_pcm16(np.zeros(3))


def test_wav_reads_back(tmp_path):
    audio_L = media_files.clicks([0.1], 0.5)
    audio.write_wav(tmp_path / "a.wav", audio_L, 16000)
    np.testing.assert_allclose(audio.load(tmp_path / "a.wav", 16000), audio_L, atol=2e-5)
    with pytest.raises(ValueError, match="mono"):
        audio.write_wav(tmp_path / "b.wav", audio_L[None], 16000)
