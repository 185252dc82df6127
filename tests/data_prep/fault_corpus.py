"""One file of every fault that scraped videos have, made on the spot.

Each is a `Fault`: how to make it, and what preparing it must give. Those with a recipe carry
numbered frames and clicks, so that sync can be measured in what was made of them.
"""

from collections.abc import Callable
import dataclasses
from fractions import Fraction
import os
import pathlib

import av
import numpy as np

from tests.data_prep import fault_bytes, sync_measure
from tests.media import media_files, sync_media

SECONDS = 3.0
CLIP_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class Fault:
    """A file and what becomes of it.

    Attributes:
      make: writes the file to a path.
      records: seconds of image of each record that is expected.
      reasons: of each failure that is expected.
      fps: of the source, where the sync of its records is to be measured; None where images or
        audio are not ours.
      late: samples at 16 kHz that the audio is late in the file itself.
    """

    make: Callable[[pathlib.Path], object]
    records: tuple[float, ...] = (2.0, 1.0)
    reasons: tuple[str, ...] = ()
    fps: float | None = 20.0
    late: float = 0.0


def ours(suffix: str = ".mp4", **changes) -> sync_media.Recipe:
    """A recipe of three seconds with a click every second."""
    recipe = sync_media.Recipe(suffix, seconds=SECONDS)
    recipe = dataclasses.replace(recipe, **changes)
    if "clicks" in changes:
        return recipe
    return dataclasses.replace(recipe, clicks=sync_measure.clicks(len(recipe.times_s)))


def written(suffix: str = ".mp4", **changes) -> Callable[[pathlib.Path], object]:
    """Writes a recipe."""
    recipe = ours(suffix, **changes)
    if recipe.suffix not in (".mp4", ".mkv", ".webm", ".mov", ".avi", ".ts", ".mpg", ".flv"):
        raise ValueError(f"no container {recipe.suffix}")

    def make(path: pathlib.Path) -> None:
        with_suffix = path.with_name(f".making{recipe.suffix}")
        sync_media.write(with_suffix, recipe)
        os.replace(with_suffix, path)

    return make


def changed(
    change: Callable[[bytes], bytes], suffix: str = ".mp4", **changes
) -> Callable[[pathlib.Path], object]:
    """Writes a recipe and then changes its bytes."""
    write = written(suffix, **changes)

    def make(path: pathlib.Path) -> None:
        write(path)
        path.write_bytes(change(path.read_bytes()))

    return make


def raw(data: bytes) -> Callable[[pathlib.Path], object]:
    """Writes these bytes."""
    return lambda path: path.write_bytes(data)


def two_sizes(path: pathlib.Path) -> None:
    """The video becomes larger half way."""
    recipe = ours(".mkv")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=20)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuvj420p"
        images = []
        for i in range(60):
            size = 64 if i < 30 else 96
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.height = encoder.width = size
            encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 20)
            image = sync_media.video_of(i, (size, size))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format="yuvj420p")
            frame.pts, frame.time_base = i, Fraction(1, 20)
            images += encoder.encode(frame) + encoder.encode()
        audio = container.add_stream("pcm_s16le", rate=recipe.rate_hz)
        audio.layout = "mono"
        container.start_encoding()
        for packet in images:
            packet.stream = stream
            container.mux(packet)
        _mux_pcm(container, audio, sync_media.audio_of(recipe), recipe.rate_hz)


def _mux_pcm(container, stream, audio_L: np.ndarray, rate_hz: int, format: str = "s16") -> None:
    if format == "s16":
        audio_L = np.rint(audio_L * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(audio_L[None], format=format, layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


def not_a_number(path: pathlib.Path) -> None:
    """Some samples of the audio are NaN, some infinite."""
    recipe = ours(".mkv")
    audio_L = sync_media.audio_of(recipe)
    audio_L[100:110], audio_L[200], audio_L[300] = np.nan, np.inf, -np.inf
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p"
        audio = container.add_stream("pcm_f32le", rate=recipe.rate_hz)
        audio.layout = "mono"
        for i in range(60):
            frame = av.VideoFrame.from_ndarray(sync_media.video_of(i), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 20)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        _mux_pcm(container, audio, audio_L, recipe.rate_hz, "flt")


def never_ending(path: pathlib.Path) -> None:
    """Images of 16 megapixels, a thousand a second, in a codec of one thread: takes minutes."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("gif", rate=1000)
        stream.height = stream.width = 4096
        stream.pix_fmt = "rgb8"
        audio = container.add_stream("pcm_s16le", rate=16000)
        audio.layout = "mono"
        frame = av.VideoFrame(4096, 4096, "rgb8")
        frame.pts, frame.time_base = 0, Fraction(1, 1000)
        (image,) = stream.encode(frame) + stream.encode()
        data = bytes(image)
        for i in range(1900):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 1000), True
            packet.pts = packet.dts = i
            container.mux(packet)
        _mux_pcm(container, audio, np.zeros(32000), 16000)


def phone(path: pathlib.Path) -> None:
    """Filmed upright: stored lying down, with a note to turn it."""
    sync_media.write(path, ours(turns=1))
    media_files.rotate_mp4(path, 1)


VFR_S = tuple(np.cumsum([0.0] + [0.02, 0.08, 0.05] * 25).round(3)[:60])
_WEBM = {"image": "libvpx", "audio": "libopus", "rate_hz": 48000}
UNREADABLE = {"records": (), "reasons": ("unreadable",)}

# Files whose video begins after the audio's priming (MPEG-TS) or the B frames (fragments) end a
# little after 3 s and have one more frame.
FAULTS: dict[str, Fault] = {
    "plain.mp4": Fault(written()),
    # cut off, empty, something else
    "truncated.mp4": Fault(changed(fault_bytes.cut(0.6)), **UNREADABLE),
    "truncated_with_index_in_front.mp4": Fault(
        changed(fault_bytes.cut(0.75), container_options=(("movflags", "faststart"),)),
        records=(1.5,),
        reasons=("empty",),
    ),
    "truncated.mkv": Fault(
        changed(fault_bytes.cut(0.5), ".mkv"), records=(1.5,), reasons=("empty",)
    ),
    "truncated.ts": Fault(changed(fault_bytes.cut(0.5), ".ts"), records=(1.75,)),
    "missing_moov.mp4": Fault(changed(fault_bytes.without_box(b"moov")), **UNREADABLE),
    "missing_mdat.mp4": Fault(
        changed(fault_bytes.without_box(b"mdat")), records=(), reasons=("empty",)
    ),
    "zero_bytes.mp4": Fault(raw(b""), **UNREADABLE),
    "zeros.mp4": Fault(raw(bytes(20000)), **UNREADABLE),
    "noise.mp4": Fault(raw(np.random.default_rng(0).bytes(20000)), **UNREADABLE),
    "page.mp4": Fault(raw(b"<!DOCTYPE html><html>404 not found</html>" * 50), **UNREADABLE),
    "damaged.mp4": Fault(changed(fault_bytes.damaged)),
    "wrong_extension.avi": Fault(written(".webm", **_WEBM)),
    "wrong_extension.mp4": Fault(written(".ts"), records=(2.0, 1.25)),
    "\u00fcn\u00ef \u58f0 \U0001f3ac 100%.mp4": Fault(written()),
    "a:b#c?d 'e'.mp4": Fault(written()),
    os.fsdecode(b"no_utf8_\xff.mp4"): Fault(written(), records=(), reasons=("bad_name",)),
    # streams that lack, or are too many
    "sound_only.mp4": Fault(written(image=None), records=(), reasons=("no_video",)),
    "sound_and_cover.mp4": Fault(
        written(image=None, cover=True), records=(), reasons=("no_video",)
    ),
    "picture_only.mp4": Fault(written(audio=None), records=(), reasons=("no_audio",)),
    "cover_before_picture.mp4": Fault(written(cover=True)),
    "two_sound_tracks.mkv": Fault(written(".mkv", silent_tracks=1)),
    "two_sound_tracks.mp4": Fault(written(silent_tracks=1)),
    "one_fifth_of_a_second.mp4": Fault(
        written(seconds=0.2, clicks=()), records=(), reasons=("too_short",)
    ),
    "one_picture.mp4": Fault(
        written(fps=Fraction(1, 3), clicks=(0,)), records=(2.0, 1.0), fps=None
    ),
    # audio
    "8_khz_mono.mp4": Fault(written(rate_hz=8000)),
    "48_khz_5.1.mp4": Fault(written(rate_hz=48000, layout="5.1")),
    "96_khz_stereo.mkv": Fault(written(".mkv", audio="flac", rate_hz=96000, layout="stereo")),
    "stereo_said_to_be_mono.mp4": Fault(changed(fault_bytes.mono_in_name, layout="stereo")),
    "not_a_number.mkv": Fault(not_a_number),
    "unknown_sound_codec.mkv": Fault(
        changed(fault_bytes.renamed(b"A_AAC", b"A_XYZ"), ".mkv"),
        records=(),
        reasons=("unsupported", "unsupported"),
    ),
    "damaged_sound.mkv": Fault(
        changed(fault_bytes.silenced, ".mkv"), records=(), reasons=("empty", "empty")
    ),
    # image
    "variable_frame_rate.mp4": Fault(
        written(frame_times_s=VFR_S, clicks=tuple(range(5, 58, 20))), fps=None
    ),
    "rotated.mp4": Fault(phone),
    "odd_size.webm": Fault(
        written(".webm", image="libvpx-vp9", audio="libopus", rate_hz=48000, size=(63, 65))
    ),
    "odd_size_444.mkv": Fault(written(".mkv", pix_fmt="yuv444p", size=(65, 63))),
    "10_bit.mp4": Fault(written(pix_fmt="yuv420p10le")),
    "444.mp4": Fault(written(pix_fmt="yuv444p")),
    "alpha.mov": Fault(written(".mov", image="png", audio="pcm_s16le", pix_fmt="rgba")),
    "grey_16_bit.mkv": Fault(written(".mkv", image="ffv1", pix_fmt="gray16le")),
    "zero_size.mp4": Fault(changed(fault_bytes.zero_size)),
    "two_sizes.mkv": Fault(two_sizes),
    "unknown_picture_codec.mp4": Fault(
        changed(fault_bytes.renamed(b"avc1", b"zzz1")), records=(), reasons=("unsupported",)
    ),
    "one_frame_a_second.mp4": Fault(written(fps=Fraction(1), clicks=(0, 1, 2)), fps=None),
    "240_frames_a_second.mp4": Fault(written(fps=Fraction(240), clicks=(20, 300)), fps=None),
    "odd_time_base.mkv": Fault(
        written(".mkv", fps=Fraction(24000, 1001)), records=(2.0, 1.25), fps=24000 / 1001
    ),
    # containers
    "b_frames.avi": Fault(
        written(".avi", image="mpeg4", audio="pcm_s16le", video_options=(("bf", "2"),))
    ),
    "mjpeg.avi": Fault(written(".avi", image="mjpeg", audio="pcm_s16le", pix_fmt="yuvj420p")),
    "live.webm": Fault(
        written(
            ".webm",
            **_WEBM,
            container_options=(("live", "1"),),
        )
    ),
    "fragments.mp4": Fault(
        written(container_options=(("movflags", "frag_keyframe+empty_moov+default_base_moof"),)),
        records=(2.0, 1.25),
    ),
    # times
    "late_sound.mp4": Fault(
        written(
            audio_start_s=0.7,
            audio_seconds=2.3,
            container_options=(("movie_timescale", "44100"),),
        )
    ),
    # edit lists count in the movie's clock, which FFmpeg lets tick in milliseconds
    "late_sound_in_ms.mp4": Fault(written(audio_start_s=0.7, audio_seconds=2.3), late=-12.32),
    "late_sound.mkv": Fault(written(".mkv", audio_start_s=0.7, audio_seconds=2.3)),
    "late_sound.webm": Fault(
        written(
            ".webm",
            **_WEBM,
            audio_start_s=0.7,
            audio_seconds=2.3,
        )
    ),
    "late_sound.ts": Fault(written(".ts", audio_start_s=0.7, audio_seconds=2.3)),
    "late_picture.mkv": Fault(written(".mkv", video_start_s=0.6, seconds=2.4, audio_seconds=3.0)),
    "short_sound.mp4": Fault(written(audio_seconds=1.4)),
    "short_sound.mkv": Fault(written(".mkv", audio_seconds=1.4)),
    "long_sound.mp4": Fault(written(audio_seconds=6.0)),
    "long_sound.mkv": Fault(
        written(".mkv", audio_seconds=6.0), records=(2.0, 1.0), reasons=("empty",)
    ),
    "gap_in_sound.mp4": Fault(written(audio_gap_s=(0.5, 1.1))),
    "gap_in_sound.mkv": Fault(written(".mkv", audio="pcm_s16le", audio_gap_s=(0.5, 1.1))),
    "trimmed_by_edit_list.mp4": Fault(changed(fault_bytes.trimmed), records=(2.0, 0.5)),
    "negative_times.mkv": Fault(
        written(
            ".mkv",
            video_start_s=-0.5,
            audio_start_s=-0.5,
            container_options=(("avoid_negative_ts", "disabled"),),
        ),
        records=(2.0, 1.25),
    ),
    "huge_times.mkv": Fault(
        written(
            ".mkv",
            video_start_s=4e5,
            audio_start_s=4e5,
            container_options=(("avoid_negative_ts", "disabled"),),
        )
    ),
    "times_wrap.ts": Fault(  # they have 33 bits
        written(".ts", video_start_s=95442.2, audio_start_s=95442.2), records=(2.0, 1.25)
    ),
    "stated_length_of_years.mp4": Fault(changed(fault_bytes.endless)),
    "gap_of_years.mkv": Fault(
        written(
            ".mkv",
            frame_times_s=(*(i / 20 for i in range(30)), 1e6),
            clicks=(5, 25),
            video_options=(("bf", "0"),),
        ),
        records=(),
        reasons=("unsupported",),
    ),
    "times_start_again.ts": Fault(changed(fault_bytes.twice, ".ts"), records=(2.0, 1.25)),
    # decoders
    "never_ending.mov": Fault(never_ending, records=(), reasons=("timeout",)),
}


def make(folder: pathlib.Path) -> None:
    """Writes all files, a broken link and a named pipe into a folder."""
    for name, fault in FAULTS.items():
        fault.make(folder / name)
    (folder / "broken_link.mp4").symlink_to(folder / "nowhere.mp4")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
