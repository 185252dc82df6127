"""Puts audio beside a video, which stays as it is.

Axis letters: H W C image, L audio samples.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
from fractions import Fraction
import hashlib
import itertools
import os
import pathlib

import av
import av.container
import numpy as np
import soxr

from foley_jax.media import container as containers
from foley_jax.media import copying, fitting, level, specs, spool, writing
from foley_jax.media import frames as frames_lib


def mux(
    video_path: str | pathlib.Path,
    audio: np.ndarray,
    sample_rate_hz: int,
    out_path: str | pathlib.Path,
) -> None:
    """Writes a video with new audio: its video packets copied untouched, the audio as AAC.

    Any old audio is dropped. The audio is cut, or filled up with silence, to the video's
    length; its sample 0 plays at the clip's second 0. The video is encoded anew as H.264 where
    the output container cannot hold it, or would show something else: frames that an edit list
    hides, another shape, other colours.

    Args:
      video_path: the video.
      audio: [L] float in [-1, 1]; see `level.written` for louder ones.
      sample_rate_hz: its rate.
      out_path: .mp4, .mov, .m4v or .mkv; not the video itself.
    Raises:
      containers.MediaError: "missing", "unreadable", "no_video", "empty", or "unwritable".
      ValueError: the audio is not mono float, its rate does not suit AAC, or out_path is no
        name that can be written.
    """
    format = writing.format_of(out_path)
    out_path = pathlib.Path(out_path)
    if out_path.resolve() == pathlib.Path(video_path).resolve():
        name = containers.printable(out_path)
        raise ValueError(f"{name}: the output would overwrite the video it is made from")
    # as short as can be: the output's own name may be as long as names can be
    digest = hashlib.sha256(os.fsencode(out_path.name)).hexdigest()[:16]
    part = out_path.with_name(f".{digest}.part{out_path.suffix}")
    audio = np.asarray(audio)
    writing.check_audio(audio, sample_rate_hz)
    waveform = (level.written(out_path, audio), sample_rate_hz)
    try:
        if not _copied(video_path, *waveform, part, format):
            _encoded(video_path, *waveform, part, format)
        os.replace(part, out_path)
    finally:
        part.unlink(missing_ok=True)


def _fine_grained(audio_L: np.ndarray, sample_rate_hz: int) -> tuple[Iterator[np.ndarray], int]:
    """Raises low rates to 48 kHz: an AAC track is whole frames of 1024 samples, 64 ms at 16 kHz.

    Returns:
      The audio block by block, and its rate.
    """
    if sample_rate_hz >= 44100:
        return spool.pieces(audio_L), sample_rate_hz
    raised = soxr.ResampleStream(sample_rate_hz, 48000, 1, dtype="float32", quality="HQ")

    def blocks() -> Iterator[np.ndarray]:
        for block_L in spool.pieces(audio_L):
            yield raised.resample_chunk(block_L.astype(np.float32))
        yield raised.resample_chunk(np.zeros(0, np.float32), last=True)

    return blocks(), 48000


def _copied(
    video_path: str | pathlib.Path,
    audio_L: np.ndarray,
    sample_rate_hz: int,
    out_path: pathlib.Path,
    format: str,
) -> bool:
    """Writes the video with its own packets; whether that can be done and shows the same."""
    with _video_of(video_path) as (source, stream):
        entries = copying.sample_entries(source, stream, format)
    for sample_entry in entries:
        try:
            with (
                _video_of(video_path) as (source, stream),
                containers.open_output(out_path, format) as out,
            ):
                copy = copying.VideoCopy(source, stream, out, sample_entry)
                track = writing.AacTrack(out, *_fine_grained(audio_L, sample_rate_hz))
                _write(video_path, out, track, copy.packets())
        except copying.CannotCopyError:
            continue
        except ValueError as error:
            if getattr(error, "reason", "unwritable") != "unwritable":
                raise
            continue
        return copying.shows_the_same(video_path, out_path, copy.shown_s)
    return False


def _encoded(
    video_path: str | pathlib.Path,
    audio_L: np.ndarray,
    sample_rate_hz: int,
    out_path: pathlib.Path,
    format: str,
) -> None:
    """Writes the video with its video encoded anew."""
    with (
        _video_of(video_path) as (source, stream),
        containers.open_output(out_path, format) as out,
    ):
        image = _encoded_packets(source, stream, out)
        # the stream comes with the first packet, the audio's track after it
        first = next(image, None)
        if first is None:
            raise _empty(video_path)
        track = writing.AacTrack(out, *_fine_grained(audio_L, sample_rate_hz))
        _write(video_path, out, track, itertools.chain([first], image))


@contextlib.contextmanager
def _video_of(
    path: str | pathlib.Path,
) -> Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]:
    with containers.open_input(path) as source:
        stream = containers.video_stream(source)
        if stream is None:
            raise containers.MediaError("no_video", f"{path}: has no video stream")
        yield source, stream


def _write(
    video_path: str | pathlib.Path,
    out: av.container.OutputContainer,
    track: writing.AacTrack,
    image: Iterator[tuple[av.Packet, float]],
) -> None:
    """Writes packets, each with the time at which what is shown by then ends, and audio beside."""
    end_s = 0.0
    for packet, packet_end_s in image:
        end_s = max(end_s, packet_end_s)
        out.mux(packet)
        track.write_until(end_s)
    if end_s <= 0:
        raise _empty(video_path)
    track.finish(length_s=end_s)


def _empty(path: str | pathlib.Path) -> containers.MediaError:
    return containers.MediaError("empty", f"{path}: no video in its stream")


def _encoded_packets(
    source: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    out: av.container.OutputContainer,
) -> Iterator[tuple[av.Packet, float]]:
    """The video decoded, turned upright and encoded as H.264 at the times it had."""
    rate = frames_lib.frame_rate(stream)
    target = canvas = None
    origin_s = containers.origin_s(source)

    def packets(frame: av.VideoFrame | None) -> Iterator[tuple[av.Packet, float]]:
        for packet in target.encode(frame):
            length_s = float((packet.duration or 0) * packet.time_base) or 1 / rate
            yield packet, float(packet.pts * packet.time_base) + length_s

    for time_s, end_s, image in frames_lib.timed_frames(source, stream):
        if target is None:
            canvas = _Canvas.of(image)
            target = writing.h264_stream(
                out,
                canvas.width,
                canvas.height,
                Fraction(rate).limit_denominator(1001),
                crf=18,
                preset="medium",
            )
            context = target.codec_context
            target.time_base = context.time_base = writing.CLOCK
            context.sample_aspect_ratio = canvas.aspect
            writing.tag_bt709(context)
        frame = writing.bt709_frame(canvas.pixels(image))
        frame.time_base = writing.CLOCK
        frame.pts = round((time_s - origin_s) / writing.CLOCK)
        frame.duration = round((end_s - time_s) / writing.CLOCK)
        yield from packets(frame)
    if target is not None:
        yield from packets(None)


@dataclasses.dataclass(frozen=True)
class _Canvas:
    """The size of an encoded stream, which its first frame decides; later ones may have others.

    Attributes:
      height, width: even, in pixels that are `aspect` wide.
    """

    height: int
    width: int
    aspect: Fraction

    @classmethod
    def of(cls, image: frames_lib.Frame) -> "_Canvas":
        height, width = image.upright_size
        return cls(height // 2 * 2, width // 2 * 2, image.geometry.turned_aspect)

    def pixels(self, image: frames_lib.Frame) -> np.ndarray:
        """uint8 RGB of this size: the video less an odd row or column, or between black bars."""
        pixels_HWC = image.pixels()
        if _Canvas.of(image) == self:
            return np.ascontiguousarray(pixels_HWC[: self.height, : self.width])
        height, width = image.shown_size
        spec = specs.VideoSpec(height=self.height, width=self.width, fit="letterbox")
        # where pixels are `aspect` wide, a height is so many of their widths
        return fitting.fit(pixels_HWC, spec, (round(height * self.aspect), width))
