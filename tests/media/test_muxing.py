"""New audio beside an image that stays as it was."""

import av
import numpy as np
import pytest

from foley_jax.media import audio, specs, video
from tests.media import media_files


def packets(path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def lengths_s(path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(stream.duration * stream.time_base) for stream in container.streams]


@pytest.mark.parametrize("seconds", [0.4, 2.0, 5.0])
def test_image_is_untouched_and_lengths_agree(tmp_path, seconds):
    path = media_files.write(tmp_path / "in.mp4", fps=21.5, seconds=2)
    video.mux(path, media_files.clicks([0.3], seconds), 16000, tmp_path / "out.mp4")
    assert packets(tmp_path / "out.mp4") == packets(path)
    video_s, audio_s = lengths_s(tmp_path / "out.mp4")
    assert abs(video_s - 2.0) < 0.05 and abs(audio_s - video_s) < 0.05


def test_new_audio_replaces_the_old_at_its_time(tmp_path):
    path = media_files.write(tmp_path / "in.mp4", times_s=(0.2,))
    video.mux(path, media_files.clicks([0.9], 2.0), 16000, tmp_path / "out.mp4")
    assert abs(media_files.onset_s(audio.load(tmp_path / "out.mp4", 16000)) - 0.9) < 0.003


def test_rotation_survives(tmp_path):
    path = media_files.write(tmp_path / "in.mp4")
    media_files.rotate_mp4(path, 1)
    video.mux(path, np.zeros(16000, np.float32), 16000, tmp_path / "out.mp4")
    before, after = video.probe(path), video.probe(tmp_path / "out.mp4")
    assert (after.rotation, after.width, after.height) == (270, before.width, before.height)


def test_image_the_container_cannot_hold_is_encoded_anew(tmp_path):
    path = tmp_path / "in.mkv"
    frames_THWC = media_files.grey_frames(20)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame_HWC in frames_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode())
    out = tmp_path / "out.mp4"
    video.mux(path, np.zeros(32000, np.float32), 16000, out)
    with av.open(str(out)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    spec = specs.VideoSpec(fps=10, height=48, width=64)
    shown, wanted = video.read_frames(out, spec), video.read_frames(path, spec)
    assert np.abs(shown.astype(int) - wanted).max() <= 4


def test_failure_leaves_no_file_behind(tmp_path):
    path = media_files.write(tmp_path / "in.mp4")
    with pytest.raises(ValueError, match="mono"):
        video.mux(path, np.zeros((2, 100), np.float32), 16000, tmp_path / "out.mp4")
    with pytest.raises(ValueError, match="overwrite"):
        video.mux(path, np.zeros(100, np.float32), 16000, path)
    with pytest.raises(ValueError, match="ending in"):
        video.mux(path, np.zeros(100, np.float32), 16000, tmp_path / "out.txt")
    with pytest.raises(video.MediaError, match="no such file"):
        video.mux(tmp_path / "none.mp4", np.zeros(100, np.float32), 16000, tmp_path / "out.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]
