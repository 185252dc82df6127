"""Video files with audio: from frames, or beside a video stream that stays untouched.

Axis letters: T frames, H W C image, L audio samples.
"""

from collections.abc import Iterable
from fractions import Fraction
import pathlib

import av
import numpy as np

from foley_jax.media import container as containers
from foley_jax.media import level, spool

AUDIO_BIT_RATE = 128_000
AAC_FRAME = 1024
CLOCK = Fraction(1, 90000)  # ticks of re-encoded images of any frame rate
AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
# suffix -> container; Apple's own kind of mp4, FFmpeg's choice for .m4v, lacks H.265
FORMATS = {".mp4": "mp4", ".mov": "mov", ".m4v": "mp4", ".mkv": "matroska"}
SUFFIXES = tuple(FORMATS)
BT709, LIMITED_RANGE = 1, 1  # as FFmpeg numbers them


class AacTrack:
    """An AAC track of an output container, fed as far as the video has come."""

    def __init__(
        self,
        container: av.container.OutputContainer,
        blocks: Iterable[np.ndarray],
        sample_rate_hz: int,
        coder: str = "twoloop",
    ):
        """`blocks`: the audio, float [L] one after the other, taken when their turn has come."""
        self._container, self._rate = container, sample_rate_hz
        self._blocks, self._held_L = iter(blocks), np.zeros(0, np.float32)
        self._done = 0
        self._stream = container.add_stream("aac", rate=sample_rate_hz)
        self._stream.layout = "mono"
        self._stream.bit_rate = AUDIO_BIT_RATE
        self._stream.options = {"aac_coder": coder}

    def write_until(self, time_s: float) -> None:
        """Encodes and writes whole AAC frames of audio that end by `time_s`."""
        while self._done + AAC_FRAME <= int(time_s * self._rate) and self._holds(AAC_FRAME):
            self._encode(self._taken(AAC_FRAME))

    def finish(self, length_s: float | None = None) -> None:
        """Writes what is left; with `length_s`, cut or filled up with silence to that length."""
        end = None if length_s is None else round(length_s * self._rate)
        while end is None or self._done < end:
            wanted = AAC_FRAME if end is None else min(AAC_FRAME, end - self._done)
            self._holds(wanted)
            chunk_L = self._taken(wanted)
            if end is not None:
                chunk_L = np.pad(chunk_L, (0, wanted - len(chunk_L)))
            if not len(chunk_L):
                break
            self._encode(chunk_L)
        self._container.mux(self._stream.encode())

    def _holds(self, count: int) -> bool:
        """Takes blocks until there are `count` samples; False if the audio ends before."""
        while len(self._held_L) < count:
            block_L = next(self._blocks, None)
            if block_L is None:
                return False
            block_L = np.clip(block_L, -1, 1).astype(np.float32)
            self._held_L = np.concatenate([self._held_L, block_L])
        return True

    def _taken(self, count: int) -> np.ndarray:
        chunk_L, self._held_L = self._held_L[:count], self._held_L[count:]
        return chunk_L

    def _encode(self, chunk_L: np.ndarray) -> None:
        frame = av.AudioFrame.from_ndarray(chunk_L[None], format="fltp", layout="mono")
        frame.sample_rate = self._rate
        frame.time_base = Fraction(1, self._rate)
        frame.pts = self._done
        self._container.mux(self._stream.encode(frame))
        self._done += len(chunk_L)


def write_video(
    path: str | pathlib.Path,
    frames_THWC: np.ndarray,
    fps: float,
    *,
    audio: np.ndarray | None = None,
    sample_rate_hz: int | None = None,
    crf: int = 18,
    preset: str = "medium",
    threads: int = 0,
    aac_coder: str = "twoloop",
) -> None:
    """Writes frames (and audio) as H.264 yuv420p (and AAC).

    Args:
      path: output file, .mp4, .mov, .m4v or .mkv.
      frames_THWC: [T, H, W, 3] uint8 RGB; frame i is shown from i / fps; H and W even.
      fps: frames per second.
      audio: [L] float in [-1, 1], or None for a silent video; see `level.written` for louder ones.
      sample_rate_hz: its rate.
      crf: H.264 quality, 0 (lossless) to 51 (worst).
      preset: x264 speed preset.
      threads: encoder threads, 0 = as many as x264 likes.
      aac_coder: "twoloop" (better) or "fast".
    Raises:
      ValueError: wrong shapes, types or sizes, or a rate AAC cannot hold.
      containers.MediaError: "unwritable".
    """
    format = format_of(path)
    if frames_THWC.ndim != 4 or frames_THWC.shape[-1] != 3 or frames_THWC.dtype != np.uint8:
        raise ValueError(
            f"frames are {frames_THWC.dtype}{list(frames_THWC.shape)}, wanted uint8 [T, H, W, 3]"
        )
    height, width = frames_THWC.shape[1:3]
    if height % 2 or width % 2 or not len(frames_THWC):
        raise ValueError(
            f"{len(frames_THWC)} frames of {height}x{width}: H.264 yuv420p wants at least one "
            "frame and even sides; pad or crop by one pixel"
        )
    if audio is not None and sample_rate_hz is None:
        raise ValueError("audio was given without sample_rate_hz")
    if audio is not None:
        audio = np.asarray(audio)
        check_audio(audio, sample_rate_hz)
        audio = level.written(path, audio)
    rate = Fraction(fps).limit_denominator(1001)
    with containers.open_output(path, format) as container:
        stream = h264_stream(container, width, height, rate, crf, preset)
        stream.codec_context.thread_count = threads
        track = None
        if audio is not None:
            track = AacTrack(container, spool.pieces(audio), sample_rate_hz, aac_coder)
        for i, frame_HWC in enumerate(frames_THWC):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            frame.pts, frame.time_base = i, 1 / rate
            container.mux(stream.encode(frame))
            if track is not None:
                track.write_until(float((i + 1) / rate))
        container.mux(stream.encode())
        if track is not None:
            track.finish()


def h264_stream(
    container: av.container.OutputContainer,
    width: int,
    height: int,
    rate: Fraction,
    crf: int,
    preset: str,
) -> av.video.stream.VideoStream:
    """Adds an H.264 yuv420p stream of a nominal rate to an output container."""
    stream = container.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.options = {"crf": str(crf), "preset": preset}
    return stream


def tag_bt709(context: av.video.codeccontext.VideoCodecContext) -> None:
    """Says of a stream, before it is opened, that it holds what `bt709_frame` gives."""
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED_RANGE


def bt709_frame(image_HWC: np.ndarray) -> av.VideoFrame:
    """uint8 RGB as yuv420p of BT.709, the colours that players expect of large images.

    The matrix without a tag is BT.601, which many players use for small images only.
    """
    frame = av.VideoFrame.from_ndarray(image_HWC, format="rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace="ITU709")


def check_audio(audio_L: np.ndarray, sample_rate_hz: int) -> None:
    """Raises ValueError unless this is mono float audio at a rate AAC can hold."""
    if sample_rate_hz not in AAC_RATES_HZ:
        raise ValueError(f"AAC cannot hold {sample_rate_hz} Hz; wanted one of {AAC_RATES_HZ}")
    if audio_L.ndim != 1 or not np.issubdtype(audio_L.dtype, np.floating):
        raise ValueError(
            f"audio is {audio_L.dtype}{list(audio_L.shape)}, wanted float [samples] (mono)"
        )


def format_of(path: str | pathlib.Path) -> str:
    """The container that a file name asks for, as FFmpeg calls it.

    Raises:
      ValueError: it asks for none that we write.
    """
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in FORMATS:
        name = containers.printable(path)
        raise ValueError(f"{name}: wanted an output name ending in one of {', '.join(FORMATS)}")
    return FORMATS[suffix]
