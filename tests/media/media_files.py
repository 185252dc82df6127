"""Small media files for tests, made on the spot."""

from fractions import Fraction
import pathlib
import struct

import av
import numpy as np

from foley_jax.media import video

RATE_HZ = 16000


def grey_frames(num_frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frame i is all 4 * i: its brightness says which frame it is."""
    values_T = (4 * np.arange(num_frames)).astype(np.uint8)
    return np.broadcast_to(values_T[:, None, None, None], (num_frames, height, width, 3)).copy()


def clicks(times_s: list[float], duration_s: float, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Silence with 5 ms noise bursts at the given times."""
    rng = np.random.default_rng(0)
    audio_L = np.zeros(round(duration_s * rate_hz), np.float32)
    length = rate_hz // 200
    for time_s in times_s:
        at = round(time_s * rate_hz)
        audio_L[at : at + length] = 0.4 * rng.uniform(-1, 1, length)
    return audio_L


def onset_s(audio_L: np.ndarray, rate_hz: int = RATE_HZ) -> float:
    """When the first loud sample audio clips."""
    return int(np.flatnonzero(np.abs(audio_L) > 0.1)[0]) / rate_hz


def write(
    path: pathlib.Path,
    *,
    seconds: float = 2.0,
    fps: float = 20,
    times_s: tuple[float, ...] = (0.5, 1.25),
    audio: bool = True,
    rate_hz: int = RATE_HZ,
) -> pathlib.Path:
    """A grey-coded video with clicks."""
    video.write_video(
        path,
        grey_frames(round(seconds * fps)),
        fps,
        audio=clicks(list(times_s), seconds, rate_hz) if audio else None,
        sample_rate_hz=rate_hz if audio else None,
        preset="ultrafast",
    )
    return path


def write_at(path: pathlib.Path, times_s: list[float], frames_THWC: np.ndarray) -> pathlib.Path:
    """A silent video whose frames have any times (variable frame rate)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for time_s, frame_HWC in zip(times_s, frames_THWC, strict=True):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_two_starts(path: pathlib.Path, video_s: float, audio_s: float) -> pathlib.Path:
    """One second of image and a quarter second of loud PCM that begin at given times."""
    with av.open(str(path), "w") as container:
        image = container.add_stream("libx264", rate=10, options={"bf": "0"})
        image.height = image.width = 32
        image.pix_fmt = "yuv420p"
        waveform = container.add_stream("pcm_s16le", rate=RATE_HZ)
        waveform.layout = "mono"
        for i, frame_HWC in enumerate(grey_frames(10, 32, 32)):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            frame.pts, frame.time_base = round(10 * video_s) + i, Fraction(1, 10)
            container.mux(image.encode(frame))
        container.mux(image.encode())
        chunk = np.full((1, RATE_HZ // 4), 8000, np.int16)
        frame = av.AudioFrame.from_ndarray(chunk, format="s16", layout="mono")
        frame.sample_rate, frame.time_base = RATE_HZ, Fraction(1, RATE_HZ)
        frame.pts = round(audio_s * RATE_HZ)
        container.mux(waveform.encode(frame))
        container.mux(waveform.encode())
    return path


def rotate_mp4(path: pathlib.Path, clockwise_turns: int) -> None:
    """Sets the display matrix of an mp4's image, as a phone held upright does."""
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][clockwise_turns % 4]
    matrix = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of fields
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    assert bytes(data[at : at + 36]) == identity
    data[at : at + 36] = matrix
    path.write_bytes(data)
