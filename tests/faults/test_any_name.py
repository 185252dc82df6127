"""Any legal file name is a file, for reading and for writing; tags in any encoding cost nothing."""

import os
import pathlib

import av
import numpy as np
from PIL import Image
import pytest

from foley_jax import sample
from foley_jax.media import audio, container, plots, specs, video, writing
from tests.faults import odd_media
from tests.media import media_files

SPEC = specs.VideoSpec(fps=4, height=16, width=16)
LATIN1 = os.fsdecode(b"caf\xe9.mp4")
NAMES = (
    "11:30.mp4",
    "run:2/x.mp4",
    "-x.mp4",
    "data:,x.mp4",
    "pipe:1.mp4",
    "file:x.mp4",
    "http://x/y.mp4",
    "crypto:x.mp4",
    "subfile,,start,0,end,9,,:x.mp4",
    "tee:x.mp4",
    "concat:a|b.mp4",
    "a%d%03d.mp4",
    "*?[a].mp4",
    "100 % 'of' \"it\\.mp4",
    "a$b^{$.mp4",
    "two\nlines.mp4",
    LATIN1,
    "\u00e9" * 125 + ".mp4",  # 254 bytes
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return media_files.write(
        tmp_path_factory.mktemp("plain") / "a.mp4", seconds=0.5, times_s=(0.2,)
    )


@pytest.mark.parametrize("from_here", [False, True], ids=["absolute", "relative"])
@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:40])
def test_any_name_is_read_and_written(tmp_path, monkeypatch, plain, name, from_here):
    monkeypatch.chdir(tmp_path)
    path = pathlib.Path(name) if from_here else tmp_path / name
    out = pathlib.Path("out:1") / name if from_here else tmp_path / "out:1" / name
    for file in (path, out):
        file.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(plain.read_bytes())
    info = video.probe(path)
    assert info.has_audio and info.duration_s == pytest.approx(0.5)
    assert len(video.read_frames(path, SPEC, start_s=0.1)) == 2
    audio_L = audio.load(path, 16000)
    assert media_files.onset_s(audio_L) == pytest.approx(0.2, abs=0.003)
    video.mux(path, audio_L, 16000, out)
    assert len(video.read_frames(out, SPEC)) == 2
    audio.write_wav(out.with_suffix(".wav"), audio_L, 16000)
    assert len(audio.load(out.with_suffix(".wav"), 16000)) == len(audio_L)
    made = {p.name for p in out.parent.iterdir()}
    assert made == {out.name, out.with_suffix(".wav").name}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a$b^{$.mp4", LATIN1, "two\nlines.mp4"], ids=ascii)
def test_any_name_is_a_title(tmp_path, name):
    plots.save_mel(tmp_path / f"{name}.png", np.zeros((128, 4)), 0.016, title=name)
    row = plots.SheetRow(np.zeros((1, 4, 4, 3), np.uint8), np.zeros(10), 10, 1.0, title=name)
    plots.save_contact_sheet(tmp_path / f"{name}.sheet.png", [row])
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("suffix", writing.SUFFIXES)
def test_frames_go_into_any_name(tmp_path, suffix):
    for stem in ("11:30", "run:2,%d|x", LATIN1):
        path = tmp_path / f"{stem}{suffix.upper()}"
        video.write_video(path, media_files.grey_frames(3), 10)
        assert video.probe(path).width == 64


def test_image_with_a_number_pattern_in_its_name(tmp_path):
    for name, level in (("a1.png", 10), ("a%d.png", 200)):
        Image.new("RGB", (16, 16), (level,) * 3).save(tmp_path / name)
    assert video.read_frames(tmp_path / "a%d.png", SPEC).mean() == pytest.approx(200, abs=2)


def test_a_playlist_sends_nobody_elsewhere(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n")
    with pytest.raises(video.MediaError) as caught:
        video.probe(path)
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize(
    ("name", "words"),
    [(LATIN1, r"caf\xe9.mp4"), ("a\nb\x1b.mp4", r"a\nb\x1b.mp4"), ("\u58f0 \u00e9.mp4",) * 2],
)
def test_errors_name_files_in_print(tmp_path, name, words):
    path = tmp_path / name
    with pytest.raises(video.MediaError) as missing:
        video.probe(path)
    path.write_text("this is no video" * 100)
    with pytest.raises(video.MediaError) as unreadable:
        video.probe(path)
    with pytest.raises(ValueError, match="overwrite") as same:
        video.mux(path, np.zeros(100, np.float32), 16000, path)
    with pytest.raises(ValueError, match="ending in") as suffix:
        writing.format_of(path.with_suffix(".txt"))
    for caught in (missing, unreadable, same):
        text = str(caught.value)
        assert words in text and text.encode() and "\n" not in text
    assert str(suffix.value).encode()


def fails_to_encode(path):
    frame_THWC = np.zeros((1, 2, 16390, 3), np.uint8)  # wider than H.264 can be
    video.write_video(path, frame_THWC, 10)


def test_what_ffmpeg_refuses_is_a_media_error(tmp_path, plain):
    with pytest.raises(video.MediaError, match="cannot be written") as caught:
        fails_to_encode(tmp_path / "a.mp4")
    assert caught.value.reason == "unwritable"
    with pytest.raises(video.MediaError, match="cannot be written"):
        video.mux(plain, np.zeros(100, np.float32), 16000, tmp_path / "no" / "run:2.mp4")


def test_error_while_muxing_is_one_failed_video(tmp_path, plain, monkeypatch):
    class Stream:
        def __getattr__(self, name):
            raise av.error.ExternalError(1, "it is broken")

    def broken(self, *args, **kwargs):
        return Stream()

    monkeypatch.setattr(writing, "h264_stream", broken)
    monkeypatch.setattr(writing.AacTrack, "write_until", lambda *args: broken(None).x)
    with pytest.raises((OSError, ValueError), match="it is broken"):
        video.mux(plain, np.zeros(8000, np.float32), 16000, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


SHIFT_JIS = "\u97f3\u58f0".encode("shift_jis")


def retagged(path: pathlib.Path) -> pathlib.Path:
    """Puts Shift-JIS in the place of the tag that was written."""
    data = path.read_bytes()
    assert b"TAG!" in data
    path.write_bytes(data.replace(b"TAG!", SHIFT_JIS))
    return path


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4"])
def test_tags_in_another_encoding_cost_nothing(tmp_path, suffix):
    codec = {".avi": "mpeg4"}.get(suffix, "libx264")
    frames_THWC = media_files.grey_frames(5)
    path = tmp_path / f"a{suffix}"
    odd_media.h264(path, frames_THWC, codec=codec, tags={"title": "TAG!", "artist": "TAG!"})
    assert path.read_bytes().count(b"TAG!") >= 2
    retagged(path)
    assert video.probe(path).duration_s == pytest.approx(0.5, abs=0.1)
    assert len(video.read_frames(path, SPEC)) == 2
    video.mux(path, np.zeros(8000, np.float32), 16000, tmp_path / "out.mp4")


def test_chapters_in_another_encoding_cost_nothing(tmp_path):
    path = media_files.write(tmp_path / "a.mkv", seconds=0.5, times_s=())
    with av.open(str(path)) as old, av.open(str(tmp_path / "b.mkv"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        tick = {"start": 0, "end": 100, "time_base": stream.time_base}
        new.set_chapters([{"id": 1, **tick, "metadata": {"title": "TAG!"}}])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    path = retagged(tmp_path / "b.mkv")
    with container.open_input(path) as opened:
        assert len(opened.chapters()) == 1
    assert len(video.read_frames(path, SPEC)) == 2


def test_clip_is_saved_beside_a_video_of_any_name(tmp_path, plain):
    path = tmp_path / LATIN1
    path.write_bytes(plain.read_bytes())
    clip = sample.Clip(np.zeros(8000, np.float32), 16000, np.zeros((128, 4)), 0.016, {}, path)
    for suffix in (".wav", ".mp4", ".png"):
        out = tmp_path / "out" / f"{path.stem}{suffix}"
        clip.plot(out) if suffix == ".png" else clip.save(out)
        assert out.stat().st_size > 0
