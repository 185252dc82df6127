"""Mono audio from any media file, 16-bit PCM, and WAV files.

Axis letters: L audio samples.
"""

from collections.abc import Iterator
import dataclasses
import pathlib
import wave

import av
import numpy as np
import soxr

from foley_jax.media import audio_clock, level, spool
from foley_jax.media import container as containers

# Timestamps within this of the running sample count are taken as contiguous (Matroska rounds to
# 1 ms, AVI to a packet); beyond it there is a gap or an overlap in the file.
TIMESTAMP_SLACK_S = 0.02
FLOAT_LIMIT = 16.0  # louder samples of float audio are damage: 24 dB above full scale
# Decoding starts this much before a wanted time: seeking lands on packets, codecs need a run-up.
SEEK_MARGIN_S = 0.5


def load(
    path: str | pathlib.Path,
    sample_rate_hz: int,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> np.ndarray:
    """Reads a file's audio as mono at a given rate.

    Sample 0 is what sounds at `start_s` on the container's clock: the track is placed by its
    timestamps, with silence where it starts late or has a gap. Channels are averaged (FFmpeg's
    own downmix is 3 dB too loud in float) and resampled with soxr at high quality.

    What a file does not say stays in: AVI has no timestamps, so the delay of its codec is heard (of
    FFmpeg's encoders MP3 25.1 ms at 44.1 kHz, AAC 23.2 ms, AC-3 5.3 ms at 48 kHz, PCM none); mp4
    places tracks that begin late to 1 ms, and Matroska and WebM late Opus to 0.5 ms.

    Args:
      path: any audio or video file.
      sample_rate_hz: wanted rate.
      start_s: where to begin, seconds.
      duration_s: how much to return, silence where there is no more audio; None = to the end of
        the track.
    Returns:
      [L] float32, nominally in [-1, 1]; L = round(duration_s * sample_rate_hz) if given.
    Raises:
      containers.MediaError: "missing", "unreadable", "no_audio", or "empty" (a track without a
        single sample in it).
    """
    if sample_rate_hz <= 0:
        raise ValueError(f"sample_rate_hz is {sample_rate_hz}, wanted a positive rate")
    with containers.open_input(path) as container:
        if not container.streams.audio:
            raise containers.MediaError("no_audio", f"{path}: has no audio track")
        stream = container.streams.audio[0]
        begin_s = start_s + containers.origin_s(container)
        tick_s = float(stream.time_base)
        runs = _runs(_native_chunks(container, stream, begin_s, duration_s))
        grid = None
        if runs and tick_s * runs[0].rate_hz > 1.5 and _is_inside(container, stream, begin_s):
            grid = audio_clock.find_grid(path, stream.index)
        native_L, native_rate = _place(runs, begin_s, duration_s, tick_s, grid)
    if native_rate is None and (start_s <= 0 or not _has_audio(path)):
        raise containers.MediaError("empty", f"{path}: its audio track holds no samples")
    audio_L = resample(native_L, native_rate, sample_rate_hz)
    if duration_s is not None:
        length = round(duration_s * sample_rate_hz)
        audio_L = np.pad(audio_L[:length], (0, max(0, length - len(audio_L))))
    return np.ascontiguousarray(audio_L, np.float32)


def rate_and_length(path: str | pathlib.Path) -> tuple[int, float]:
    """Returns what a file says of its audio: samples a second, and seconds (0 if it does not say).

    Raises:
      containers.MediaError: "missing", "unreadable" or "no_audio".
    """
    with containers.open_input(path) as container:
        if not container.streams.audio:
            raise containers.MediaError("no_audio", f"{path}: has no audio track")
        stream = container.streams.audio[0]
        if stream.duration is not None:
            return stream.rate, float(stream.duration * stream.time_base)
        return stream.rate, (container.duration or 0) / av.time_base


def _has_audio(path: str | pathlib.Path) -> bool:
    """Whether anything of the track can be decoded."""
    with containers.open_input(path) as container:
        return any(containers.decoded(container, container.streams.audio[0]))


def _native_chunks(
    container: av.container.InputContainer,
    stream: av.audio.stream.AudioStream,
    begin_s: float,
    duration_s: float | None,
) -> Iterator[tuple[float | None, int, np.ndarray]]:
    """Yields (time in seconds or None, rate, mono [L] float32) from before `begin_s` on."""
    for time_s, frame in containers.from_time(
        container, stream, begin_s, _timed, run_up_s=SEEK_MARGIN_S
    ):
        if duration_s is not None and time_s is not None and time_s >= begin_s + duration_s:
            return
        yield time_s, frame.sample_rate, _mono(frame)


def _timed(
    container: av.container.InputContainer, stream: av.audio.stream.AudioStream
) -> Iterator[tuple[float | None, av.AudioFrame]]:
    for frame in containers.decoded(container, stream):
        yield (None if frame.pts is None else float(frame.pts * frame.time_base)), frame


def _is_inside(
    container: av.container.InputContainer, stream: av.audio.stream.AudioStream, begin_s: float
) -> bool:
    """Whether a track is read from its middle."""
    return begin_s - SEEK_MARGIN_S > containers.start_s(container, stream)


def channels(path: str | pathlib.Path) -> tuple[int, np.ndarray]:
    """Reads every channel of a file's first track as it is stored, without regard to times.

    Returns:
      Samples a second, and float32 [C, L], nominally in [-1, 1].
    Raises:
      containers.MediaError: as `load`; "unsupported" of a track that changes its layout.
    """
    with containers.open_input(path) as container:
        if not container.streams.audio:
            raise containers.MediaError("no_audio", f"{path}: has no audio track")
        frames = containers.decoded(container, container.streams.audio[0])
        chunks = [(frame.sample_rate, _channels(frame)) for frame in frames]
    if not chunks:
        raise containers.MediaError("empty", f"{path}: its audio track holds no samples")
    if len({(rate, len(chunk)) for rate, chunk in chunks}) > 1:
        raise containers.MediaError("unsupported", f"{path}: its audio changes rate or channels")
    return chunks[0][0], np.concatenate([c for _, c in chunks], axis=1).astype(np.float32)


def _mono(frame: av.AudioFrame) -> np.ndarray:
    """Averages the channels of one decoded frame, scaled to [-1, 1]."""
    return _channels(frame).mean(axis=0, dtype=np.float64).astype(np.float32)


def _channels(frame: av.AudioFrame) -> np.ndarray:
    """The channels of one decoded frame, [C, L] scaled to [-1, 1]."""
    samples = frame.to_ndarray()
    if np.issubdtype(samples.dtype, np.floating):  # one NaN would spread over all when resampled
        samples = np.clip(np.nan_to_num(samples, posinf=0.0, neginf=0.0), -FLOAT_LIMIT, FLOAT_LIMIT)
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T  # [1, L*C] -> [C, L]
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    return samples


@dataclasses.dataclass
class _Run:
    """Chunks that follow each other without a gap."""

    rate_hz: int
    times_s: list[float | None] = dataclasses.field(default_factory=list)
    chunks: list[np.ndarray] = dataclasses.field(default_factory=list)
    length: int = 0

    @property
    def lengths(self) -> list[int]:
        return [len(chunk) for chunk in self.chunks]

    def reaches(self, time_s: float | None) -> bool:
        """Whether a chunk of this time goes on where the run ends."""
        if time_s is None or self.times_s[0] is None:
            return True
        return abs(self.times_s[0] + self.length / self.rate_hz - time_s) <= TIMESTAMP_SLACK_S


def _runs(chunks: Iterator[tuple[float | None, int, np.ndarray]]) -> list[_Run]:
    runs: list[_Run] = []
    for time_s, rate_hz, chunk in chunks:
        if not runs:
            runs.append(_Run(rate_hz))
        elif not runs[-1].reaches(time_s):
            runs.append(_Run(runs[0].rate_hz))
        run = runs[-1]
        chunk = resample(chunk, rate_hz, run.rate_hz)
        run.times_s.append(time_s)
        run.chunks.append(chunk)
        run.length += len(chunk)
    return runs


def _place(
    runs: list[_Run],
    begin_s: float,
    duration_s: float | None,
    tick_s: float,
    grid: audio_clock.Grid | None,
) -> tuple[np.ndarray, int | None]:
    """Lays runs on one time line whose sample 0 is at `begin_s`; returns (samples, rate)."""
    if not runs:
        return np.zeros(0, np.float32), None
    rate = runs[0].rate_hz
    placed = []
    for run in runs:
        start_s = begin_s  # a track without a single timestamp
        if any(time_s is not None for time_s in run.times_s):
            start = audio_clock.run_start(run.times_s, run.lengths, rate, tick_s)
            start_s = start.time_s
            if grid is not None and run is runs[0]:
                start_s = audio_clock.on_grid(start, run.lengths, rate, grid)
        placed.append((round((start_s - begin_s) * rate), np.concatenate(run.chunks)))
    length = max(0, max(at + len(waveform_L) for at, waveform_L in placed))
    if duration_s is not None:
        length = min(length, round(duration_s * rate))
    line, filled = np.zeros(length, np.float32), 0
    for at, waveform_L in placed:  # where times start again, the first recording counts
        first, last = max(0, filled - at), min(len(waveform_L), length - at)
        if first < last:
            line[at + first : at + last] = waveform_L[first:last]
            filled = at + last
    return line, rate


def resample(audio_L: np.ndarray, from_hz: int | None, to_hz: int) -> np.ndarray:
    """Audio float32 [L] at another rate, by soxr at high quality; None leaves it as it is."""
    if from_hz is None or from_hz == to_hz or not len(audio_L):
        return audio_L
    return soxr.resample(audio_L, from_hz, to_hz, quality="HQ")


def to_pcm16(audio_L: np.ndarray) -> np.ndarray:
    """Float in [-1, 1] -> int16, rounded; louder samples are clipped, as players clip them."""
    return np.clip(np.rint(np.asarray(audio_L, np.float32) * 32768), -32768, 32767).astype(np.int16)


def from_pcm16(audio_L: np.ndarray) -> np.ndarray:
    """int16 -> float32 in [-1, 1).

    Raises:
      ValueError: not int16.
    """
    if audio_L.dtype != np.int16:
        raise ValueError(f"audio is {audio_L.dtype}, wanted int16 PCM")
    return audio_L.astype(np.float32) / 32768


def write_wav(path: str | pathlib.Path, audio_L: np.ndarray, sample_rate_hz: int) -> None:
    """Writes mono audio as a 16-bit WAV file.

    Args:
      audio_L: [L] float in [-1, 1] or int16. A louder one is brought within full scale by one gain,
        with a warning.
    Raises:
      ValueError: not one channel of finite samples.
      OSError: the file cannot be written.
    """
    if audio_L.ndim != 1:
        raise ValueError(f"audio has shape {audio_L.shape}, wanted [samples] (mono)")
    if audio_L.dtype != np.int16:
        audio_L = level.written(path, audio_L)
    # through an open file: any name will do, and a full disk is an OSError
    with pathlib.Path(path).open("wb") as out, wave.open(out, "wb") as file:
        file.setparams((1, 2, sample_rate_hz, len(audio_L), "NONE", "not compressed"))
        for block_L in spool.pieces(audio_L):
            pcm_L = block_L if block_L.dtype == np.int16 else to_pcm16(block_L)
            file.writeframes(pcm_L.astype("<i2").tobytes())
