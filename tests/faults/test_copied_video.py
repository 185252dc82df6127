"""An image with new sound shows what it showed: hidden frames stay hidden, players open it."""

from fractions import Fraction
import warnings

import av
import numpy as np
import pytest

from foley_jax.media import audio, container, muxing, specs, video
from tests.data_prep import fault_corpus
from tests.faults import odd_media
from tests.media import media_files

RATE = 16000


def codec_of(path) -> str:
    with av.open(str(path)) as opened:
        return opened.streams.video[0].codec_context.codec.name


def video_lead_s(path) -> float:
    """How much later the video begins than the first click audio clips."""
    with container.open_input(path) as opened:
        begins_s = container.start_s(opened, container.video_stream(opened))
        origin_s = container.origin_s(opened)
    return begins_s - origin_s - media_files.onset_s(audio.load(path, RATE))


# a key frame every 12 or at the beginning only; with and without frames out of order
GOPS = {"one": {}, "some": {"g": "12", "bf": "0"}, "intra": {"g": "1"}}


def trimmed(path, *, gop: str = "one", start_s: float = 0.5, length_s: float = 1.0):
    """Two seconds at 10 frames a second, of which an edit list hides the beginning."""
    odd_media.h264(path, media_files.grey_frames(20, 48, 64), options=GOPS[gop])
    odd_media.trim(path, start_s, length_s)
    return path


@pytest.mark.parametrize("gop", GOPS)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v", ".mkv"])
@pytest.mark.parametrize("length_s", [1.5, 1.0], ids=["to the end", "end hidden"])
def test_hidden_frames_stay_hidden(tmp_path, suffix, gop, length_s):
    path = trimmed(tmp_path / "in.mp4", gop=gop, length_s=length_s)
    out = tmp_path / f"out{suffix}"
    video.mux(path, media_files.clicks([0.3], 3.0), RATE, out)
    (in_s, in_grey), (out_s, out_grey) = odd_media.shown(path), odd_media.shown(out)
    assert len(in_s) == round(10 * length_s) and in_grey[0] == pytest.approx(4 * 5, abs=2)
    assert len(out_s) == len(in_s)
    np.testing.assert_allclose(out_s, in_s, atol=0.002)
    np.testing.assert_allclose(out_grey, in_grey, atol=2)  # of H.264
    assert video.probe(out).duration_s == pytest.approx(length_s, abs=0.045)  # one AAC frame
    assert video_lead_s(out) == pytest.approx(-0.3, abs=0.003)
    assert codec_of(out) == "h264"


def test_trimmed_mp4_is_still_a_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(muxing, "_encoded", None)
    path = trimmed(tmp_path / "in.mp4")
    video.mux(path, np.zeros(RATE, np.float32), RATE, tmp_path / "out.mp4")
    with av.open(str(path)) as old, av.open(str(tmp_path / "out.mp4")) as new:
        before, after = ([bytes(p) for p in c.demux(video=0) if p.size] for c in (old, new))
    assert after == before[: len(after)] and len(after) >= 15


def test_plain_images_are_copied_everywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(muxing, "_encoded", None)
    path = odd_media.h264(tmp_path / "in.mp4", media_files.grey_frames(20, 48, 64))
    sources = [path]
    for suffix in (".mkv", ".mov", ".mp4", ".m4v"):
        out = tmp_path / f"out{suffix}"
        for source in sources:
            video.mux(source, np.zeros(RATE, np.float32), RATE, out)
            np.testing.assert_allclose(
                odd_media.shown(out)[0], odd_media.shown(path)[0], atol=0.002
            )
        sources.append(tmp_path / f"kept{suffix}")
        out.rename(sources[-1])


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v", ".mkv"])
@pytest.mark.parametrize("entry", ["hvc1", "hev1", "matroska"])
def test_h265_is_named_as_apple_wants_it(tmp_path, suffix, entry):
    path = tmp_path / ("in.mkv" if entry == "matroska" else "in.mp4")
    odd_media.hevc(path, (502, 512, 512), tags=(1, 1, 1), sample_entry=entry, num_frames=5)
    out = tmp_path / f"out{suffix}"
    video.mux(path, np.zeros(8000, np.float32), RATE, out)
    assert odd_media.sample_entry(out) == ("hvc1" if suffix != ".mkv" else "\0\0\0\0")
    assert codec_of(out) == "hevc"
    np.testing.assert_array_equal(odd_media.shown(out)[1], odd_media.shown(path)[1])


def test_other_names_of_codecs_are_kept(tmp_path):
    frames_THWC = media_files.grey_frames(3, 48, 64)
    path = odd_media.h264(tmp_path / "in.mp4", frames_THWC)
    data = path.read_bytes()
    (tmp_path / "avc3.mp4").write_bytes(data.replace(b"avc1\0", b"avc3\0"))
    assert odd_media.sample_entry(tmp_path / "avc3.mp4") == "avc3"
    video.mux(tmp_path / "avc3.mp4", np.zeros(4800, np.float32), RATE, tmp_path / "out.mp4")
    assert odd_media.sample_entry(tmp_path / "out.mp4") == "avc3"
    # a name that mp4 does not know: FFmpeg chooses another, and the packets stay
    moved = odd_media.h264(tmp_path / "in.mov", frames_THWC, codec="mjpeg", pix_fmt="yuvj420p")
    assert odd_media.sample_entry(moved) == "jpeg"
    video.mux(moved, np.zeros(4800, np.float32), RATE, tmp_path / "jpeg.mp4")
    assert codec_of(tmp_path / "jpeg.mp4") == "mjpeg"


def test_copy_that_looks_different_is_encoded(tmp_path, monkeypatch):
    path = odd_media.h264(tmp_path / "in.mp4", media_files.grey_frames(5, 48, 64))
    add, calls = muxing.copying.VideoCopy.__init__, []

    def forgetful(self, *args):  # as a container that cannot say something
        add(self, *args)
        self._target.codec_context.sample_aspect_ratio = Fraction(3)
        calls.append(1)

    monkeypatch.setattr(muxing.copying.VideoCopy, "__init__", forgetful)
    video.mux(path, np.zeros(8000, np.float32), RATE, tmp_path / "out.mp4")
    assert calls and video.probe(tmp_path / "out.mp4").width == 64


def test_sizes_that_change_fit_into_an_encoded_copy(tmp_path, monkeypatch):
    path = tmp_path / "in.mkv"
    fault_corpus.two_sizes(path)
    monkeypatch.setattr(muxing, "_copied", lambda *args: False)
    video.mux(path, np.zeros(8000, np.float32), RATE, tmp_path / "out.mp4")
    spec = specs.VideoSpec(fps=20, height=64, width=64)
    wanted, found = video.read_frames(path, spec), video.read_frames(tmp_path / "out.mp4", spec)
    assert len(found) == len(wanted) == 60
    assert np.abs(found.astype(int) - wanted).mean() < 4


def test_colours_of_an_encoded_copy(tmp_path, monkeypatch):
    frames_THWC = np.zeros((3, 48, 64, 3), np.uint8)
    frames_THWC[:] = (200, 40, 90)
    path = odd_media.h264(tmp_path / "in.mp4", frames_THWC)
    monkeypatch.setattr(muxing, "_copied", lambda *args: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        video.mux(path, np.zeros(4800, np.float32), RATE, tmp_path / "out.mp4")
    spec = specs.VideoSpec(10, 48, 64)
    wanted, found = video.read_frames(path, spec), video.read_frames(tmp_path / "out.mp4", spec)
    assert np.abs(found.astype(int) - wanted).max() <= 4
    with av.open(str(tmp_path / "out.mp4")) as opened:
        context = opened.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
