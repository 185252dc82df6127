"""Frames at given times, upright; and a reason for every file that cannot give them."""

import numpy as np
from PIL import Image
import pytest

from foley_jax.media import specs, video
from tests.media import media_files

SPEC = specs.VideoSpec(fps=4, height=24, width=32)


def values(frames_THWC: np.ndarray) -> list[int]:
    """Frame numbers read from the brightness that `grey_frames` gave them."""
    return [round(float(frame.mean()) / 4) for frame in frames_THWC]


def test_frame_i_is_the_last_one_shown_by_its_time(tmp_path):
    path = media_files.write(tmp_path / "a.mp4", fps=21.5, seconds=2)
    frames_THWC = video.read_frames(path, SPEC)
    assert frames_THWC.shape == (8, 24, 32, 3) and frames_THWC.dtype == np.uint8
    assert values(frames_THWC) == [int(i * 0.25 * 21.5 + 1e-9) for i in range(8)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_start_and_duration_choose_the_frames(tmp_path, suffix):
    path = media_files.write(tmp_path / f"a{suffix}", fps=20, seconds=3)
    frames_THWC = video.read_frames(path, SPEC, start_s=1.1, duration_s=1.2)
    assert values(frames_THWC) == [22, 27, 32, 37, 42]


def test_frames_end_where_the_image_ends(tmp_path):
    path = media_files.write(tmp_path / "a.mp4", fps=20, seconds=1.5)
    assert values(video.read_frames(path, SPEC, duration_s=10.0)) == [0, 5, 10, 15, 20, 25]


def test_variable_frame_rate_follows_the_times(tmp_path):
    times_s = [0.0, 0.1, 0.4, 1.3, 1.31, 1.9]
    path = media_files.write_at(tmp_path / "vfr.mp4", times_s, media_files.grey_frames(6))
    shown = values(video.read_frames(path, SPEC, duration_s=2.0))
    assert shown[:8] == [0, 1, 2, 2, 2, 2, 4, 4]


def test_late_image_shows_its_first_frame_meanwhile(tmp_path):
    path = media_files.write_two_starts(tmp_path / "late.mkv", 0.6, 0.0)
    assert values(video.read_frames(path, SPEC, duration_s=1.0)) == [0, 0, 0, 1]


def test_whole_video_comes_with_its_length(tmp_path):
    path = media_files.write(tmp_path / "a.mp4", fps=20, seconds=1.5)
    frames_THWC, length_s = video.read_whole(path, SPEC)
    np.testing.assert_array_equal(frames_THWC, video.read_frames(path, SPEC))
    assert length_s == pytest.approx(1.5, abs=0.001)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_phone_video_is_turned_upright(tmp_path, turns):
    frame_HWC = np.full((48, 64, 3), 40, np.uint8)
    frame_HWC[:8, :8] = 250  # a mark in the top left corner of the stored image
    path = tmp_path / "phone.mp4"
    video.write_video(path, np.repeat(frame_HWC[None], 10, axis=0), 10, crf=5)
    media_files.rotate_mp4(path, turns)
    info = video.probe(path)
    wanted = np.rot90(frame_HWC, -turns)  # clockwise
    assert (info.height, info.width) == wanted.shape[:2]
    assert info.rotation == 90 * (-turns % 4)
    spec = specs.VideoSpec(fps=1, height=wanted.shape[0], width=wanted.shape[1])
    shown = video.read_frames(path, spec)[0].astype(int)
    assert np.abs(shown - wanted).mean() < 3


def test_resize_is_pil_bilinear_with_antialias(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    path = tmp_path / "a.mp4"
    video.write_video(path, noise[None], 10, crf=0)
    full = video.read_frames(path, specs.VideoSpec(fps=1, height=48, width=64))[0]
    small = video.read_frames(path, specs.VideoSpec(fps=1, height=10, width=20))[0]
    wanted = Image.fromarray(full).resize((20, 10), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(small, np.asarray(wanted))


def test_probe_tells_what_is_there(tmp_path):
    path = media_files.write(tmp_path / "a.mp4", fps=20, seconds=2)
    assert video.probe(path) == video.MediaInfo(2.0, 20.0, 64, 48, 0, True, True)
    silent = media_files.write(tmp_path / "silent.mp4", audio=False)
    assert not video.probe(silent).has_audio


def broken_file(tmp_path, kind):
    """A path, and the reason its reading must give."""
    path = tmp_path / "broken.mp4"
    if kind == "truncated":  # the index of an mp4 lies at its end
        data = media_files.write(path).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif kind == "zero length":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is no video" * 100)
    elif kind == "audio only":
        import soundfile

        path = tmp_path / "sound.wav"
        soundfile.write(path, np.zeros(100), 16000)
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("truncated", "unreadable"),
        ("zero length", "unreadable"),
        ("text", "unreadable"),
        ("audio only", "no_video"),
        ("missing", "missing"),
    ],
)
def test_broken_file_gives_its_reason(tmp_path, kind, reason):
    path = broken_file(tmp_path, kind)
    with pytest.raises(video.MediaError, match=path.name) as caught:
        video.read_frames(path, SPEC)
    assert caught.value.reason == reason


def test_cut_off_matroska_gives_what_is_left(tmp_path):
    path = media_files.write(tmp_path / "a.mkv", fps=20, seconds=4)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    shown = values(video.read_frames(path, SPEC, duration_s=4.0))
    assert 3 <= len(shown) < 16
    assert shown == [5 * i for i in range(len(shown))]


def test_start_past_the_end_is_empty(tmp_path):
    path = media_files.write(tmp_path / "a.mp4")
    with pytest.raises(video.MediaError, match="no video from 7.000 s") as caught:
        video.read_frames(path, SPEC, start_s=7.0, duration_s=1.0)
    assert caught.value.reason == "empty"


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 5, 6, 3), np.uint8, "even sides"),
        ((2, 6, 6), np.uint8, "wanted uint8"),
        ((2, 6, 6, 3), np.float32, "wanted uint8"),
        ((0, 6, 6, 3), np.uint8, "at least one"),
    ],
)
def test_write_video_refuses_what_it_cannot_hold(tmp_path, shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        video.write_video(tmp_path / "a.mp4", np.zeros(shape, dtype), 10)


def test_errors_keep_their_reason_across_processes():
    import pickle

    error = pickle.loads(pickle.dumps(video.MediaError("no_audio", "a.mp4: has no audio track")))
    assert (error.reason, str(error)) == ("no_audio", "a.mp4: has no audio track")
