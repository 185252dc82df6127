"""Puts sound beside a video's picture, which stays as it is.

Axis letters: L audio samples.
"""

from collections.abc import Iterator
from fractions import Fraction
import os
import pathlib

import av
import av.error
import numpy as np
import soxr

from foley_jax.media import container as containers
from foley_jax.media import frames as frames_lib
from foley_jax.media import spool, writing


def mux(
    video_path: str | pathlib.Path,
    audio: np.ndarray,
    sample_rate_hz: int,
    out_path: str | pathlib.Path,
) -> None:
    """Writes a video with new sound: its picture packets copied untouched, the sound as AAC.

    Any old sound is dropped. The sound is cut, or filled up with silence, to the picture's
    length; its sample 0 plays at the clip's second 0. A picture that the output container cannot
    hold is encoded anew as H.264.

    Args:
      video_path: the video.
      audio: [L] float in [-1, 1].
      sample_rate_hz: its rate.
      out_path: .mp4, .mov, .m4v or .mkv; not the video itself.
    Raises:
      containers.MediaError: "missing", "unreadable", "no_video", or "empty".
      ValueError: the sound is not mono float, its rate does not suit AAC, or out_path is no
        name that can be written.
    """
    writing.check_suffix(out_path)
    out_path = pathlib.Path(out_path)
    if out_path.resolve() == pathlib.Path(video_path).resolve():
        raise ValueError(f"{out_path}: the output would overwrite the video it is made from")
    part = out_path.with_name(f".{out_path.stem}.part{out_path.suffix}")
    audio = np.asarray(audio)
    writing.check_audio(audio, sample_rate_hz)
    try:
        try:
            _write(video_path, audio, sample_rate_hz, part, copy=True)
        except _CannotCopyError:
            _write(video_path, audio, sample_rate_hz, part, copy=False)
        os.replace(part, out_path)
    finally:
        part.unlink(missing_ok=True)


def _fine_grained(audio_L: np.ndarray, sample_rate_hz: int) -> tuple[Iterator[np.ndarray], int]:
    """Raises low rates to 48 kHz: an AAC track is whole frames of 1024 samples, 64 ms at 16 kHz.

    Returns:
      The sound block by block, and its rate.
    """
    if sample_rate_hz >= 44100:
        return spool.pieces(audio_L), sample_rate_hz
    raised = soxr.ResampleStream(sample_rate_hz, 48000, 1, dtype="float32", quality="HQ")

    def blocks() -> Iterator[np.ndarray]:
        for block_L in spool.pieces(audio_L):
            yield raised.resample_chunk(block_L.astype(np.float32))
        yield raised.resample_chunk(np.zeros(0, np.float32), last=True)

    return blocks(), 48000


class _CannotCopyError(Exception):
    """The output container does not take these packets."""


def _write(
    video_path: str | pathlib.Path,
    audio_L: np.ndarray,
    sample_rate_hz: int,
    out_path: pathlib.Path,
    *,
    copy: bool,
) -> None:
    with containers.open_input(video_path) as source:
        stream = containers.video_stream(source)
        if stream is None:
            raise containers.MediaError("no_video", f"{video_path}: has no picture stream")
        with av.open(str(out_path), "w") as out:
            picture = _copied(source, stream, out) if copy else _encoded(source, stream, out)
            track = writing.AacTrack(out, *_fine_grained(audio_L, sample_rate_hz))
            end_s = 0.0
            for packet, packet_end_s in picture:
                end_s = max(end_s, packet_end_s)
                try:
                    out.mux(packet)
                except (av.error.FFmpegError, ValueError) as error:
                    if copy:
                        raise _CannotCopyError from error
                    raise
                track.write_until(end_s)
            if end_s <= 0:
                raise containers.MediaError("empty", f"{video_path}: no picture in its stream")
            track.finish(length_s=end_s)


def _copied(
    source: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    out: av.container.OutputContainer,
) -> Iterator[tuple[av.Packet, float]]:
    """The picture's packets as they are, second 0 moved to 0, and each one's end in seconds."""
    try:
        target = out.add_stream_from_template(stream)
    except (av.error.FFmpegError, ValueError) as error:
        raise _CannotCopyError from error
    return _retimed(source, stream, target)


def _retimed(
    source: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    target: av.video.stream.VideoStream,
) -> Iterator[tuple[av.Packet, float]]:
    origin = round(containers.origin_s(source) / stream.time_base)
    period = round(1 / (frames_lib.frame_rate(stream) * stream.time_base))
    packets = source.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):  # a cut-off file ends here
            return
        if packet.dts is None and packet.pts is None:
            continue  # the flush packet
        if packet.pts is None:
            raise _CannotCopyError  # old AVI: display order is known only to the decoder
        packet.pts -= origin
        if packet.dts is not None:
            packet.dts -= origin
        end_s = float((packet.pts + (packet.duration or period)) * stream.time_base)
        packet.stream = target
        yield packet, end_s


def _encoded(
    source: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    out: av.container.OutputContainer,
) -> Iterator[tuple[av.Packet, float]]:
    """The picture decoded, turned upright and encoded as H.264 at the times it had."""
    rate = frames_lib.frame_rate(stream)
    target = None
    origin_s = containers.origin_s(source)

    def packets(frame: av.VideoFrame | None) -> Iterator[tuple[av.Packet, float]]:
        for packet in target.encode(frame):
            length_s = float((packet.duration or 0) * packet.time_base) or 1 / rate
            yield packet, float(packet.pts * packet.time_base) + length_s

    for time_s, _, frame in frames_lib.timed_frames(source, stream):
        pixels = frames_lib.upright(frame)
        height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
        if target is None:
            target = writing.h264_stream(
                out, width, height, Fraction(rate).limit_denominator(1001), crf=18, preset="medium"
            )
            target.time_base = target.codec_context.time_base = writing.CLOCK
        picture = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(pixels[:height, :width]), format="rgb24"
        )
        picture.time_base = writing.CLOCK
        picture.pts = round((time_s - origin_s) / writing.CLOCK)
        yield from packets(picture)
    if target is not None:
        yield from packets(None)
