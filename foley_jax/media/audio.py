"""Mono sound from any media file, 16-bit PCM, and WAV files.

Axis letters: L audio samples.
"""

from collections.abc import Iterator
import pathlib

import av
import numpy as np
import soundfile
import soxr

from foley_jax.media import container as containers

# Timestamps within this of the running sample count are taken as contiguous (Matroska rounds to
# 1 ms, AVI to a packet); beyond it there is a gap or an overlap in the file.
TIMESTAMP_SLACK_S = 0.02
# Decoding starts this much before a wanted time: seeking lands on packets, codecs need a run-up.
SEEK_MARGIN_S = 0.5


def load(
    path: str | pathlib.Path,
    sample_rate_hz: int,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> np.ndarray:
    """Reads a file's sound as mono at a given rate.

    Sample 0 is what sounds at `start_s` on the container's clock: the track is placed by its
    timestamps, with silence where it starts late or has a gap. Channels are averaged (FFmpeg's
    own downmix is 3 dB too loud in float) and resampled with soxr at high quality.

    Args:
      path: any audio or video file.
      sample_rate_hz: wanted rate.
      start_s: where to begin, seconds.
      duration_s: how much to return, silence where there is no more sound; None = to the end of
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
        chunks = _native_chunks(container, stream, begin_s, duration_s)
        native_L, native_rate = _place(chunks, begin_s, duration_s)
    if native_rate is None and start_s <= 0:
        raise containers.MediaError("empty", f"{path}: its audio track holds no samples")
    audio_L = resample(native_L, native_rate, sample_rate_hz)
    if duration_s is not None:
        length = round(duration_s * sample_rate_hz)
        audio_L = np.pad(audio_L[:length], (0, max(0, length - len(audio_L))))
    return np.ascontiguousarray(audio_L, np.float32)


def _native_chunks(
    container: av.container.InputContainer,
    stream: av.audio.stream.AudioStream,
    begin_s: float,
    duration_s: float | None,
) -> Iterator[tuple[float | None, int, np.ndarray]]:
    """Yields (time in seconds or None, rate, mono [L] float32) from before `begin_s` on."""
    if begin_s - SEEK_MARGIN_S > containers.origin_s(container):
        container.seek(int((begin_s - SEEK_MARGIN_S) / stream.time_base), stream=stream)
    for frame in containers.decoded(container, stream):
        time_s = None if frame.pts is None else float(frame.pts * frame.time_base)
        if duration_s is not None and time_s is not None and time_s >= begin_s + duration_s:
            return
        yield time_s, frame.sample_rate, _mono(frame)


def _mono(frame: av.AudioFrame) -> np.ndarray:
    """Averages the channels of one decoded frame, scaled to [-1, 1]."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T  # [1, L*C] -> [C, L]
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    return samples.mean(axis=0, dtype=np.float64).astype(np.float32)


def _place(
    chunks: Iterator[tuple[float | None, int, np.ndarray]],
    begin_s: float,
    duration_s: float | None,
) -> tuple[np.ndarray, int | None]:
    """Lays chunks on one time line whose sample 0 is at `begin_s`; returns (samples, rate)."""
    rate = None
    placed: list[tuple[int, np.ndarray]] = []
    head = 0  # where the next contiguous chunk goes; may be negative
    for time_s, chunk_rate, chunk in chunks:
        if rate is None:
            rate = chunk_rate
        wanted = head if time_s is None else round((time_s - begin_s) * rate)
        if not placed or abs(wanted - head) > TIMESTAMP_SLACK_S * rate:
            head = wanted
        chunk = resample(chunk, chunk_rate, rate)
        placed.append((head, chunk))
        head += len(chunk)
    if rate is None:
        return np.zeros(0, np.float32), None
    length = max(0, max(at + len(chunk) for at, chunk in placed))
    if duration_s is not None:
        length = min(length, round(duration_s * rate))
    line = np.zeros(length, np.float32)
    for at, chunk in placed:
        first, last = max(0, -at), min(len(chunk), length - at)
        if first < last:
            line[at + first : at + last] = chunk[first:last]
    return line, rate


def resample(audio_L: np.ndarray, from_hz: int | None, to_hz: int) -> np.ndarray:
    """Sound float32 [L] at another rate, by soxr at high quality; None leaves it as it is."""
    if from_hz is None or from_hz == to_hz or not len(audio_L):
        return audio_L
    return soxr.resample(audio_L, from_hz, to_hz, quality="HQ")


def to_pcm16(audio_L: np.ndarray) -> np.ndarray:
    """Float in [-1, 1] -> int16, rounded; louder samples are clipped."""
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
    """Writes mono sound as a 16-bit WAV file.

    Args:
      audio_L: [L] float in [-1, 1] or int16.
    Raises:
      ValueError: not one channel of samples.
    """
    if audio_L.ndim != 1:
        raise ValueError(f"audio has shape {audio_L.shape}, wanted [samples] (mono)")
    pcm_L = audio_L if audio_L.dtype == np.int16 else to_pcm16(audio_L)
    soundfile.write(str(path), pcm_L, sample_rate_hz, subtype="PCM_16")
