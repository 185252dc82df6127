"""Tiny clips whose blows are known: a square lights up and fades, and a tone rings with it."""

import numpy as np

RATE_HZ = 16000


def times(rng, seconds):
    """Blows 0.3 to 0.7 s apart, away from the ends."""
    found = np.cumsum(rng.uniform(0.3, 0.7, 100)) - 0.1
    return found[found < seconds - 0.15]


def frames(times_s, fps, seconds, rng, side=32):
    """uint8 [T, side, side, 3]: an even background, a wandering dot, a flash at each blow."""
    count = round(seconds * fps)
    colour, corner = rng.uniform(40, 150, 3), rng.integers(4, side - 14, 2)
    out = np.broadcast_to(colour, (count, side, side, 3)).copy()
    for i in range(count):
        x = int((0.5 + 0.4 * np.sin(i / fps * 3)) * side)
        out[i, 1:3, x : x + 2] = 200
        since = i / fps - np.asarray(times_s)
        since = since[since >= 0]
        if len(since) and since[-1] < 0.3:
            y, x = corner
            out[i, y : y + 10, x : x + 10] += 100 * (1 - since[-1] / 0.3)
    return np.clip(out, 0, 255).astype(np.uint8)


def audio(times_s, seconds):
    """float32 [L]: decaying tones in faint noise."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    out = 2e-4 * np.random.default_rng(0).standard_normal(len(t))
    for time_s in times_s:
        since = np.maximum(t - time_s, 0)
        out += 0.3 * (t >= time_s) * np.sin(2 * np.pi * 900 * since) * np.exp(-since / 0.06)
    return out.astype(np.float32)
