"""Uploads that say less of themselves than they hold are refused before they are decoded."""

import dataclasses

import av
import numpy as np
import pytest
import tiny_foley

from foley_jax.inference import takes
from foley_jax.media import audio as audio_io

FEW = takes.Limits(most_mb=0.5, most_s=2.0, most_pixels=64 * 64)


def _h264(path, size, count, rate=25):
    """A file, bare H.264 by its name, of black frames, of which only the first is a key frame."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=rate, width=size, height=size, pix_fmt="yuv420p")
        stream.options = {"preset": "ultrafast", "x264-params": "keyint=1000"}
        frame = av.VideoFrame.from_ndarray(np.zeros((size * 3 // 2, size), np.uint8), "yuv420p")
        for number in range(count):
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path.read_bytes()


def test_a_header_that_states_another_length_is_not_believed(tmp_path):
    (path,) = tiny_foley.write_videos(tmp_path, [3.0])
    data = bytearray(path.read_bytes())
    for box, at in ((b"mvhd", 16), (b"mdhd", 16), (b"tkhd", 20)):
        place = data.index(box) + 4
        ticks = data[place + 12 : place + 16] if box != b"tkhd" else (1000).to_bytes(4, "big")
        data[place + at : place + at + 4] = ticks  # one second
    path.write_bytes(data.replace(b"elst", b"free"))
    with av.open(str(path)) as container:
        assert container.duration < 1.5e6
    with pytest.raises(takes.RefusedError, match="its stream lasts 2.* s, at most 2 s"):
        takes.check_video(path, FEW)


def test_frames_that_grow_later_are_refused(tmp_path):
    path = tmp_path / "grows.h264"
    small, large = (_h264(tmp_path / "one.h264", size, 5) for size in (48, 256))
    path.write_bytes(small)
    assert takes.check_video(path, FEW) == path
    path.write_bytes(small * 4 + large)
    with pytest.raises(takes.RefusedError, match=r"256x256"):
        takes.check_video(path, FEW)


def test_too_many_frames_are_refused(tmp_path):
    path = tmp_path / "fast.mp4"
    _h264(path, 64, 40, rate=100)
    limits = dataclasses.replace(FEW, most_s=1.0)
    with pytest.raises(takes.RefusedError, match="its 40 frames of 64x64 .* in all are taken"):
        takes.check_video(path, limits)


def test_audio_is_measured_as_videos_are(tmp_path):
    path = tmp_path / "long.wav"
    audio_io.write_wav(path, np.zeros(3 * 8000, np.float32), 8000)
    with pytest.raises(takes.RefusedError, match="it lasts 3.0 s, at most 2 s"):
        takes.check_audio(path, FEW)
    assert takes.check_audio(path, dataclasses.replace(FEW, most_s=3.0)) == path
    with pytest.raises(takes.RefusedError, match="no audio; choose"):
        takes.check_audio(None, FEW)
    (video,) = tiny_foley.write_videos(tmp_path, [1.0])
    with pytest.raises(takes.RefusedError, match="no audio track"):
        takes.check_audio(video, FEW)
