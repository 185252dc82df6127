"""Rounded timestamps of many chunks tell when the first one begins."""

import numpy as np
import pytest

from foley_jax.media import audio, audio_clock
from tests.media import sync_media


def rounded(begin_s, lengths, rate_hz, how=np.round):
    starts = begin_s + np.cumsum([0, *lengths[:-1]]) / rate_hz
    return list(how(starts * 1000) / 1000)


@pytest.mark.parametrize("begin_s", [0.5, 3.2764, 12.34567])
def test_many_roundings_to_a_millisecond_give_the_sample(begin_s):
    lengths = [1024] * 60
    found = audio_clock.run_start(rounded(begin_s, lengths, 44100), lengths, 44100, 1e-3)
    assert abs(found.time_s - begin_s) < 1 / 44100


def test_track_that_begins_at_zero_begins_there():
    """Cutting off digits moves all others by half a millisecond on average."""
    lengths = [1024] * 60
    times_s = rounded(0.0, lengths, 44100, np.floor)
    assert audio_clock.run_start(times_s, lengths, 44100, 1e-3).time_s == 0.0


def test_clock_that_drifts_is_met_in_the_middle():
    lengths = [1024] * 40
    drifting_s = [1.01 * t for t in rounded(0.0, lengths, 44100)]  # 9 ms too late at the end
    found = audio_clock.run_start(drifting_s, lengths, 44100, 1e-3)
    assert 0.003 < found.time_s < 0.006


def test_chunks_without_a_time_are_passed_over():
    assert audio_clock.run_start([None, 1.5, None], [100, 100, 100], 100, 1e-3).time_s == 0.5


def test_packets_of_one_length_say_where_they_lie():
    grid = audio_clock.Grid(anchor_s=0.0135, step_s=0.02)  # Opus: 20 ms, the first one cut
    exact_s = 0.0135 + 100 * 0.02
    rough = audio_clock.Start(round(exact_s + 4e-4, 3), 1e-3)
    lengths = [960] * 5
    assert audio_clock.on_grid(rough, lengths, 48000, grid) == pytest.approx(exact_s)
    # 5 ms away there was a gap: the timestamp is right; so it is where it is known better
    late = audio_clock.Start(exact_s + 5e-3, 1e-3)
    assert audio_clock.on_grid(late, lengths, 48000, grid) == late.time_s
    sure = audio_clock.Start(exact_s + 4e-4, 1e-4)
    assert audio_clock.on_grid(sure, lengths, 48000, grid) == sure.time_s
    # among packets of other lengths there is no place for it
    assert audio_clock.on_grid(rough, [960, 480, 960, 960], 48000, grid) == rough.time_s


def test_grid_is_found_only_where_packets_are_alike(tmp_path):
    for name, alike in (("mkv h264 opus", True), ("webm vp8 vorbis", False)):
        recipe = sync_media.MEDIA[name]
        path = sync_media.write(tmp_path / f"a{recipe.suffix}", recipe)
        grid = audio_clock.find_grid(path, 1)
        assert (grid is not None) == alike
        if alike:
            assert grid.step_s == 0.02
            assert grid.anchor_s == pytest.approx(0.0135, abs=1e-9)  # 20 ms - 6.5 ms of priming


@pytest.mark.parametrize("drift", [1.0005, 0.9995])
def test_drifting_track_is_never_far_from_its_timestamps(tmp_path, drift, monkeypatch):
    """An audio card that runs fast: 0.05 % are 30 ms a minute; wanted are under 20 ms anywhere."""
    path = sync_media.write(tmp_path / "a.wav", sync_media.Recipe(".wav", None, "pcm_s16le"))
    recipe = sync_media.Recipe(clicks=(20, 400, 800, 1180), seconds=60)
    waveform_L = sync_media.audio_of(recipe)
    chunks = [
        (at / recipe.rate_hz * drift, recipe.rate_hz, waveform_L[at : at + 1024])
        for at in range(0, len(waveform_L), 1024)
    ]
    monkeypatch.setattr(audio, "_native_chunks", lambda *_: iter(chunks))
    audio_L = audio.load(path, 16000, duration_s=60.0)
    offsets = sync_media.click_offsets(audio_L, 16000, [t * drift for t in recipe.click_s])
    assert np.abs(offsets).max() < 0.02 * 16000
