"""Videos whose frames flash their number in black and white, and clicks that audio with them.

A click is a sum of tones under a Hann window, known at any instant, so that its place in decoded
audio is found to a fraction of a sample by correlation with itself, whatever rate and codec it
went through. Axis letters: T frames, H W C image, L audio samples.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
from fractions import Fraction
import os
import pathlib

import av
import av.container
import numpy as np

SIZE = 64
BITS = 12
CLICK_S = 0.04
_rng = np.random.default_rng(7)
_TONES = (_rng.uniform(400, 3300, 40), _rng.uniform(0, 2 * np.pi, 40))  # within any codec's band


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that to write.

    Attributes:
      suffix: of the file, with its dot; `format` overrides the container.
      image, audio: encoders; None leaves that stream out.
      clicks: frames with which a click begins.
      audio_start_s, audio_seconds: when the audio track begins, and how long it is.
      video_start_s: time of frame 0.
      layout: channels, all alike.
      frame_times_s: of all frames, where their distances vary.
      audio_gap_s: stretch of the track without audio or packets.
      silent_tracks: more audio tracks, behind the first one.
      cover: a still image before the moving one.
      turns: quarter turns counter-clockwise by which images are stored.
      threads: that encode the video.
    """

    suffix: str = ".mp4"
    image: str | None = "libx264"
    audio: str | None = "aac"
    seconds: float = 4.0
    fps: Fraction = Fraction(20)
    rate_hz: int = 44100
    clicks: tuple[int, ...] = (10, 35, 60, 75)
    format: str | None = None
    pix_fmt: str = "yuv420p"
    layout: str = "mono"
    size: tuple[int, int] = (SIZE, SIZE)
    video_start_s: float = 0.0
    audio_start_s: float = 0.0
    audio_seconds: float | None = None
    video_options: tuple[tuple[str, str], ...] = ()
    audio_options: tuple[tuple[str, str], ...] = ()
    container_options: tuple[tuple[str, str], ...] = ()
    frame_times_s: tuple[float, ...] | None = None
    audio_gap_s: tuple[float, float] | None = None
    silent_tracks: int = 0
    cover: bool = False
    turns: int = 0
    threads: int = 1

    @property
    def times_s(self) -> list[float]:
        """When each frame is shown, from the first frame's 0."""
        if self.frame_times_s is not None:
            return list(self.frame_times_s)
        return [float(i / self.fps) for i in range(round(self.seconds * self.fps))]

    @property
    def click_s(self) -> list[float]:
        """When the clicks begin, on the clock of the frames."""
        return [self.times_s[i] for i in self.clicks]


def click(time_s: np.ndarray) -> np.ndarray:
    """The waveform of a click at times counted from its start; float64 in [-0.7, 0.7]."""
    freqs, phases = _TONES
    tones = np.sin(2 * np.pi * np.multiply.outer(time_s, freqs) + phases).sum(-1)
    window = np.where((time_s >= 0) & (time_s < CLICK_S), np.sin(np.pi * time_s / CLICK_S) ** 2, 0)
    return 0.04 * window * tones


def audio_of(recipe: Recipe) -> np.ndarray:
    """The audio track [L] float32; sample 0 at `audio_start_s`."""
    length_s = recipe.seconds if recipe.audio_seconds is None else recipe.audio_seconds
    time_L = np.arange(round(length_s * recipe.rate_hz)) / recipe.rate_hz + recipe.audio_start_s
    audio_L = np.zeros(len(time_L))
    for start_s in (time_s + recipe.video_start_s for time_s in recipe.click_s):
        near = (time_L > start_s - 0.01) & (time_L < start_s + CLICK_S + 0.01)
        audio_L[near] += click(time_L[near] - start_s)
    return audio_L.astype(np.float32)


def video_of(number: int, size: tuple[int, int] = (SIZE, SIZE)) -> np.ndarray:
    """One frame [H, W, 3] uint8: bits of its number from the top left; the first four again,
    inverted, in the last row."""
    bits = np.array([(number >> bit) & 1 for bit in range(BITS)], bool).reshape(3, 4)
    cells = np.where(np.concatenate([bits, ~bits[:1]]), 235, 20).astype(np.uint8)
    rows = np.arange(size[0]) * 4 // size[0]
    columns = np.arange(size[1]) * 4 // size[1]
    return np.repeat(cells[rows][:, columns, None], 3, axis=-1)


def numbers(frames_THWC: np.ndarray) -> list[int]:
    """Reads the numbers back from frames of any size; -1 where a frame is not one of ours."""
    return [_number(frame) for frame in frames_THWC]


def _number(frame_HWC: np.ndarray) -> int:
    height, width = frame_HWC.shape[:2]
    middle = [(np.arange(4) * 2 + 1) * side // 8 for side in (height, width)]
    cells = frame_HWC[middle[0]][:, middle[1]].mean(-1)
    bits = cells > 128
    if ((cells > 90) & (cells < 165)).any() or (bits[3] == bits[0]).any():
        return -1
    return int(sum(1 << i for i, bit in enumerate(bits[:3].reshape(-1)) if bit))


def click_offsets(audio_L: np.ndarray, rate_hz: int, click_s: Sequence[float]) -> list[float]:
    """How much later than said each click audio clips, in samples at `rate_hz`.

    Found at the peak of the correlation with the click itself, between samples by a parabola;
    NaN where no click is within 0.2 s.
    """
    audio_L = np.asarray(audio_L, np.float64)
    return [_offset(audio_L, rate_hz, start_s) for start_s in click_s]


def _offset(audio_L: np.ndarray, rate_hz: int, start_s: float) -> float:
    reach = round(0.2 * rate_hz)
    first = int(np.floor(start_s * rate_hz))
    part = np.arange(round(CLICK_S * rate_hz) + 2)
    wanted = click((first + part) / rate_hz - start_s)
    padded = np.pad(audio_L, (reach, reach + len(wanted) + max(0, first)))
    stretch = padded[first : first + 2 * reach + len(wanted)]
    match = np.correlate(stretch, wanted, "valid") / (wanted @ wanted)
    peak = int(np.argmax(match))
    if not 0 < peak < len(match) - 1 or match[peak] < 0.3:
        return float("nan")
    before, at, after = match[peak - 1 : peak + 2]
    return peak - reach + 0.5 * (before - after) / (before - 2 * at + after)


@contextlib.contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """Leaves the process as it was: SVT-AV1 gives it real-time priority where it may (as root).

    Under that, threads and child processes that wait for each other by turning in a loop keep the
    cores for themselves, and nobody gets on.
    """
    try:
        yield
    finally:
        if hasattr(os, "sched_setscheduler"):
            for thread in os.listdir("/proc/self/task"):
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setscheduler(int(thread), os.SCHED_OTHER, os.sched_param(0))


def write(path: pathlib.Path, recipe: Recipe) -> pathlib.Path:
    """Writes a file; video and audio go in side by side, as from a camera."""
    options = dict(recipe.container_options)
    with (
        ordinary_scheduling(),
        av.open(str(path), "w", format=recipe.format, options=options) as container,
    ):
        tracks = []
        if recipe.cover:
            tracks.append(_cover_packets(container))
        if recipe.image is not None:
            tracks.append(_video_packets(container, recipe))
        if recipe.audio is not None:
            tracks.append(_audio_packets(container, recipe, audio_of(recipe)))
            silence_L = np.zeros_like(audio_of(recipe))
            for _ in range(recipe.silent_tracks):
                tracks.append(_audio_packets(container, recipe, silence_L))
        pending = [next(track, None) for track in tracks]
        while any(one is not None for one in pending):
            turn = min(
                (i for i, one in enumerate(pending) if one is not None), key=lambda i: pending[i][0]
            )
            container.mux(pending[turn][1])
            pending[turn] = next(tracks[turn], None)
    return path


def _cover_packets(
    container: av.container.OutputContainer,
) -> Iterator[tuple[float, list[av.Packet]]]:
    stream = container.add_stream("mjpeg", rate=1)
    stream.height = stream.width = SIZE
    stream.pix_fmt = "yuvj420p"
    stream.disposition = av.stream.Disposition.attached_pic
    grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
    frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="yuvj420p")
    frame.pts, frame.time_base = 0, Fraction(1, 1)
    yield 0.0, stream.encode(frame) + stream.encode()


def _video_packets(
    container: av.container.OutputContainer, recipe: Recipe
) -> Iterator[tuple[float, list[av.Packet]]]:
    stream = container.add_stream(recipe.image, rate=recipe.fps)
    stream.codec_context.thread_count = recipe.threads  # what threads encode differs
    stream.height, stream.width = recipe.size
    stream.pix_fmt, stream.options = recipe.pix_fmt, dict(recipe.video_options)
    clock = 1 / recipe.fps
    if recipe.frame_times_s is not None:
        clock = Fraction(1, 1000)
        stream.time_base = stream.codec_context.time_base = clock
    for i, time_s in enumerate(recipe.times_s):
        image = np.ascontiguousarray(np.rot90(video_of(i, recipe.size), recipe.turns))
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=recipe.pix_fmt)
        frame.pts = round((time_s + recipe.video_start_s) / clock)
        frame.time_base = clock
        yield time_s + recipe.video_start_s, stream.encode(frame)
    yield float("inf"), stream.encode()


def _audio_packets(
    container: av.container.OutputContainer, recipe: Recipe, audio_L: np.ndarray
) -> Iterator[tuple[float, list[av.Packet]]]:
    stream = container.add_stream(recipe.audio, rate=recipe.rate_hz)
    stream.layout, stream.options = recipe.layout, dict(recipe.audio_options)
    if recipe.audio not in ("pcm_s16le", "flac", "alac", "pcm_u8", "adpcm_ms"):
        stream.bit_rate = 128000
    context = stream.codec_context
    gap_s = recipe.audio_gap_s or (0.0, 0.0)
    fifo = av.AudioResampler(context.format, context.layout, context.sample_rate)
    for at in range(0, len(audio_L), 1024):
        if gap_s[0] <= at / recipe.rate_hz < gap_s[1]:
            continue
        chunk = np.repeat(audio_L[None, at : at + 1024], context.layout.nb_channels, axis=0)
        frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout=recipe.layout)
        frame.sample_rate, frame.time_base = recipe.rate_hz, Fraction(1, recipe.rate_hz)
        frame.pts = at + round(recipe.audio_start_s * recipe.rate_hz)
        packets = [p for one in fifo.resample(frame) for p in stream.encode(one)]
        yield at / recipe.rate_hz + recipe.audio_start_s, packets
    rest = [p for one in fifo.resample(None) for p in stream.encode(one)]
    yield float("inf"), rest + stream.encode()


_EXPERIMENTAL = (("strict", "experimental"),)
_NO_B = (("bf", "0"),)
MEDIA = {
    "mp4 h264 aac": Recipe(),
    "mp4 h264 aac 16 kHz": Recipe(rate_hz=16000, video_options=_NO_B),
    "mp4 29.97 frames/s": Recipe(fps=Fraction(30000, 1001)),
    "mp4 in fragments": Recipe(container_options=(("movflags", "frag_keyframe+empty_moov"),)),
    "mp4 without edit list": Recipe(container_options=(("use_editlist", "0"),)),
    "mp4 mpeg4 mp3": Recipe(image="mpeg4", audio="libmp3lame"),
    "mp4 h265 opus": Recipe(image="libx265", audio="libopus", rate_hz=48000),
    "mp4 av1 ac3": Recipe(image="libsvtav1", audio="ac3", rate_hz=48000),
    "mov h264 aac": Recipe(".mov"),
    "mov prores pcm": Recipe(".mov", "prores_ks", "pcm_s16le", pix_fmt="yuv422p10le"),
    "mov h264 alac": Recipe(".mov", audio="alac"),
    "mkv h264 aac": Recipe(".mkv"),
    "mkv h264 aac 48 kHz": Recipe(".mkv", rate_hz=48000),
    "mkv h264 opus": Recipe(".mkv", audio="libopus", rate_hz=48000),
    "mkv ffv1 flac": Recipe(".mkv", "ffv1", "flac"),
    "mkv h264 mp3": Recipe(".mkv", audio="libmp3lame"),
    "webm vp9 opus": Recipe(".webm", "libvpx-vp9", "libopus", rate_hz=48000),
    "webm vp8 vorbis": Recipe(
        ".webm", "libvpx", "vorbis", layout="stereo", audio_options=_EXPERIMENTAL
    ),
    "avi mjpeg pcm": Recipe(".avi", "mjpeg", "pcm_s16le", pix_fmt="yuvj420p"),
    "avi mpeg4 ac3": Recipe(".avi", "mpeg4", "ac3", rate_hz=48000),
    "avi mpeg4 mp3": Recipe(
        ".avi", "mpeg4", "libmp3lame", container_options=(("avoid_negative_ts", "disabled"),)
    ),
    "avi h264 with B frames aac": Recipe(".avi"),
    "ts h264 aac": Recipe(".ts"),
    "ts mpeg2 mp2": Recipe(".ts", "mpeg2video", "mp2"),
    "m2ts h264 ac3": Recipe(".m2ts", audio="ac3", rate_hz=48000),
    "mpg mpeg2 mp2": Recipe(".mpg", "mpeg2video", "mp2", fps=Fraction(25)),
    "mpg of two threads": Recipe(".mpg", "mpeg2video", "mp2", fps=Fraction(25), threads=2),
    "flv h264 aac": Recipe(".flv"),
    "flv flv mp3": Recipe(".flv", "flv", "libmp3lame"),
    "wmv wmv2 wma2": Recipe(".wmv", "wmv2", "wmav2"),
    "3gp h264 aac": Recipe(".3gp"),
    "3gp h264 amr": Recipe(".3gp", audio="libopencore_amrnb", rate_hz=8000),
}
# Samples at 16 kHz by which the audio is late and no reader can know it: AVI holds no timestamps,
# so a codec's delay stays in (AAC 1024, MP3 1105, AC-3 256 samples), and for AMR the encoder says
# 6.25 ms where it has 5 ms. The numbers are FFmpeg's encoders'; others have others.
UNKNOWN_DELAY = {
    "avi mpeg4 ac3": 16000 * 256 / 48000,
    "avi mpeg4 mp3": 16000 * 1105 / 44100,
    "avi h264 with B frames aac": 16000 * 1024 / 44100,
    "3gp h264 amr": -20.0,
}
