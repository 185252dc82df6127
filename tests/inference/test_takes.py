"""Requests of a page: what is refused, what is told, what is written and removed."""

import contextlib
import dataclasses

import numpy as np
import pytest
import tiny_foley

from foley_jax.inference import clip, takes
from foley_jax.media import audio as audio_io
from foley_jax.media import video as video_io

RATE = 16000
FEW = takes.Limits(most_mb=0.5, most_s=2.0, most_pixels=64 * 64)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secret_folder")
    short, long = tiny_foley.write_videos(folder, [1.0, 3.0])
    return short, long


def test_a_video_within_the_limits_is_taken(videos):
    assert takes.check_video(str(videos[0]), FEW) == videos[0]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"most_mb": 1e-4}, "at most 0.0001 are taken"),
        ({"most_s": 0.5}, "lasts 1.0 s, at most 0.5 s"),
        ({"most_pixels": 100}, "frames are 48x32, at most 100 pixels"),
    ],
)
def test_beyond_a_limit_is_refused(videos, limits, words):
    with pytest.raises(takes.RefusedError, match=words):
        takes.check_video(videos[0], dataclasses.replace(FEW, **limits))


def test_no_visitor_is_told_a_path(videos, tmp_path):
    with pytest.raises(takes.RefusedError, match="no video; choose"):
        takes.check_video(None, FEW)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 10)
    audio_io.write_wav(tmp_path / "audio.wav", np.zeros(RATE, np.float32), RATE)
    missing = videos[0].with_name("none.mp4")
    for path in (broken, tmp_path / "audio.wav", missing):
        with pytest.raises(takes.RefusedError) as raised:
            takes.check_video(path, FEW)
        assert "/" not in str(raised.value), str(raised.value)
    told = takes.told(ValueError(f"{videos[0]}: bad, see /etc/some/where.txt"), videos[0])
    assert str(told) == f"{videos[0].name}: bad, see where.txt"
    assert "secret" not in str(takes.told(RuntimeError(f"at {videos[0]}")))


def test_a_request_ends_when_its_time_is_over():
    stages = []
    run = takes.Clock(stages.append, most_s=60.0).run()
    with run.watch("features"):
        pass
    assert stages == ["features"]
    late = takes.Clock(stages.append, most_s=-1.0).run()
    with pytest.raises(takes.RefusedError, match="longer than the -1 s"), late.watch("diffusion"):
        pass


def test_a_request_ends_when_its_visitor_has_left():
    visitors, stages = takes.Visitors(), []
    with visitors.waiting("a") as left, visitors.waiting("b") as stays:
        visitors.leave("a")
        visitors.leave("of another page")
        for is_left, event in ((True, left), (False, stays)):
            run = takes.Clock(stages.append, most_s=60.0, left=event).run()
            ended = pytest.raises(takes.RefusedError, match="before vocoder: its visitor has left")
            with ended if is_left else contextlib.nullcontext(), run.watch("vocoder"):
                pass
    assert stages == ["vocoder"]
    with visitors.waiting("a") as anew:  # who comes back is not taken for who left
        assert not anew.is_set()


def _clip(video, audio):
    return clip.Clip(audio, RATE, np.zeros((8, 16), np.float32), 0.016, {"alignment": 0.5}, video)


def test_takes_are_written_for_a_browser(videos, tmp_path):
    audio = 0.1 * np.ones(RATE, np.float32)
    (made,) = takes.write([_clip(videos[0], audio)], takes.Mix(), tmp_path)
    assert made.scores == {"alignment": 0.5}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["take1.mp4", "take1.png", "take1.wav"]
    np.testing.assert_allclose(audio_io.load(made.wav, RATE), audio, atol=1e-4)


def test_the_original_audio_is_mixed_under_the_new_one(tmp_path):
    (video,) = tiny_foley.write_videos(tmp_path, [1.0])
    own, new = 0.25 * np.ones(RATE, np.float32), 0.1 * np.ones(RATE, np.float32)
    video_io.mux(video, own, RATE, tmp_path / "sounding.mkv")
    sounding = _clip(tmp_path / "sounding.mkv", new)
    mixed = takes.mixed(sounding, takes.Mix(original_db=-20.0, fade_s=0.1))
    middle = slice(RATE // 4, RATE // 2)
    np.testing.assert_allclose(mixed[middle], 0.1 + 0.025, atol=0.004)
    assert mixed[0] < 0.05 and np.abs(np.diff(mixed[400 : RATE // 4])).max() < 0.01
    np.testing.assert_array_equal(takes.mixed(sounding, takes.Mix()), new)
    np.testing.assert_array_equal(takes.mixed(_clip(video, new), takes.Mix(-20.0)), new)  # silent


def test_files_are_removed_when_they_are_old(tmp_path):
    folders = takes.Folders(tmp_path / "root", kept_s=-1.0)
    first = folders.new()
    assert first.is_dir()
    second = folders.new()
    assert not first.exists() and second.is_dir()
    folders.drop(second)
    assert not any((tmp_path / "root").iterdir())
