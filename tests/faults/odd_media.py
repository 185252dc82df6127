"""Small media files with what few files have, made on the spot.

H W C image, T frames.
"""

from collections.abc import Sequence
from fractions import Fraction
import pathlib
import struct

import av
import numpy as np

from foley_jax.media import container as containers
from foley_jax.media import frames

FPS = 10
PQ, HLG, BT2020, BT709 = 16, 18, 9, 1
UNTAGGED = (2, 2, 2)
QUIET = "log-level=none:pools=none:frame-threads=1:bframes=0"
MASTERED = (
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    ":max-cll=1000,400"
)


def hevc(
    path: pathlib.Path,
    codes: Sequence[int],
    *,
    tags: tuple[int, int, int] = (PQ, BT2020, BT2020),
    full_range: bool = False,
    sample_entry: str = "hvc1",
    pix_fmt: str = "yuv420p10le",
    num_frames: int = 2,
    params: str = "lossless=1",
    size: tuple[int, int] = (48, 64),
) -> pathlib.Path:
    """H.265 whose frames are all of one colour.

    Args:
      codes: of Y', Cb and Cr, as they are stored.
      tags: transfer, primaries and matrix, as FFmpeg numbers them.
      params: more of x265's own.
      size: height and width.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=FPS)
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        stream.options = {"preset": "ultrafast", "x265-params": f"{QUIET}:{params}"}
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = tags
        context.color_range = 2 if full_range else 1
        if path.suffix in (".mp4", ".mov"):
            context.codec_tag = sample_entry
        for i in range(num_frames):
            frame = av.VideoFrame(size[1], size[0], pix_fmt)
            dtype = np.dtype("u1" if "10" not in pix_fmt else "<u2")
            for plane, code in zip(frame.planes, codes):
                samples = plane.height * plane.line_size // dtype.itemsize
                plane.update(np.full(samples, code, dtype).tobytes())
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def h264(
    path: pathlib.Path,
    frames_THWC: np.ndarray,
    *,
    aspect: Fraction | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> pathlib.Path:
    """Frames as they are given; `aspect` is that of a pixel, `tags` go into the container."""
    with av.open(str(path), "w") as container:
        container.metadata.update(tags or {})
        stream = container.add_stream(codec, rate=FPS)
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.options = options or {}
        stream.metadata.update(tags or {})
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for i, frame_HWC in enumerate(frames_THWC):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def rewrapped(
    source: pathlib.Path,
    path: pathlib.Path,
    *,
    aspect: Fraction | None = None,
    tags: tuple[int, int, int] | None = None,
) -> pathlib.Path:
    """The packets in a container that says more than they: aspect of pixels, colours."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        context = stream.codec_context
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if tags is not None:
            context.color_trc, context.color_primaries, context.colorspace = tags
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    return path


def aspect_changes(path: pathlib.Path, aspects: Sequence[Fraction]) -> pathlib.Path:
    """Five white frames of MPEG-2 of each aspect of a pixel, one after the other."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        packets = []
        for i in range(5 * len(aspects)):
            encoder = av.CodecContext.create("mpeg2video", "w")
            encoder.height, encoder.width, encoder.pix_fmt = 48, 64, "yuv420p"
            encoder.time_base = Fraction(1, 25)
            encoder.framerate = Fraction(25)
            encoder.sample_aspect_ratio = aspects[i // 5]
            white = np.full((48, 64, 3), 255, np.uint8)
            frame = av.VideoFrame.from_ndarray(white, format="rgb24").reformat(format="yuv420p")
            frame.time_base = Fraction(1, 25)
            frame.pts = 0
            for packet in encoder.encode(frame) + encoder.encode():
                packet.pts = packet.dts = i
                packet.time_base = Fraction(1, 25)
                packets.append(packet)
        container.start_encoding()
        for packet in packets:
            packet.stream = stream
            container.mux(packet)
    return path


def set_matrix(path: pathlib.Path, a: float, b: float, c: float, d: float) -> None:
    """Sets the display matrix of an mp4's image: (x, y) is shown at (a x + c y, b x + d y)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of fields
    a, b, c, d = (round(value * 65536) for value in (a, b, c, d))
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def trim(path: pathlib.Path, start_s: float, length_s: float) -> None:
    """Sets the edit list of an mp4's only track, as phones trim."""
    data = bytearray(path.read_bytes())
    rates = {}
    for box in (b"mvhd", b"mdhd"):
        at = data.index(box) + 16
        rates[box] = struct.unpack(">I", data[at : at + 4])[0]
    at = data.index(b"elst") + 8
    count, _, begin = struct.unpack(">IIi", data[at : at + 12])
    assert count == 1
    begin += round(start_s * rates[b"mdhd"])
    data[at + 4 : at + 12] = struct.pack(">Ii", round(length_s * rates[b"mvhd"]), begin)
    path.write_bytes(data)


def sample_entry(path: pathlib.Path) -> str:
    """Returns what a file calls its video's codec."""
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.codec_tag


def shown(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """When each frame is shown, from the first one's beginning, and the grey of its middle."""
    with containers.open_input(path) as opened:
        stream = containers.video_stream(opened)
        timed = [(t, p.pixels()[24, 32].mean()) for t, _, p in frames.timed_frames(opened, stream)]
    times_s, greys = np.array(timed).T
    return times_s - times_s[0], greys
