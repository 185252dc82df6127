"""Clips drawn for tests: a textured square lies still and jolts at every blow."""

import numpy as np

FPS = 10.0
SECONDS = 8.0


def events(rng, count=5):
    """Blows at least 1.1 s apart, so that none is near the neighbour of another."""
    return np.cumsum(rng.uniform(1.1, 1.5, count)) - 0.4


def image(events_s, rng, seconds=SECONDS, side=40):
    """uint8 [T, side, side, 3] at `FPS`."""
    square = np.kron(rng.integers(60, 256, (4, 4, 3)), np.ones((3, 3, 1), int))
    times = np.arange(int(seconds * FPS)) / FPS
    frames = np.full((len(times), side, side, 3), 20, np.uint8)
    for frame, blows in zip(frames, np.searchsorted(events_s, times, side="right")):
        row = 14 + 2 * (blows % 2)
        frame[row : row + 12, row : row + 12] = square
    return frames


def waveform(events_s, rng, rate_hz, seconds=SECONDS):
    """float32 [L]: decaying noise at every blow."""
    audio = np.zeros(int(seconds * rate_hz))
    for start in (np.asarray(events_s) * rate_hz).astype(int):
        n = np.arange(len(audio) - start)
        audio[start:] += 0.3 * np.exp(-n / (0.08 * rate_hz)) * rng.normal(size=len(n))
    return np.clip(audio, -1, 1).astype(np.float32)


def delayed(audio_L, delay_s, rate_hz):
    """The audio comes later, cut to its length."""
    num = round(delay_s * rate_hz)
    return np.concatenate([np.zeros(num, audio_L.dtype), audio_L[: len(audio_L) - num]])
