"""Long videos in small, and a vocoder that is fast."""

import pathlib

import numpy as np

from foley_jax.media import video as video_io


def write(path: pathlib.Path, seconds: float, fps: int = 4) -> pathlib.Path:
    """Writes a video of noise, 16x16; returns its path."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (round(seconds * fps), 16, 16, 3), dtype=np.uint8)
    video_io.write_video(path, frames, fps, preset="ultrafast")
    return path


class Tone:
    """A `media.vocoder.Vocoder`: noise of its own for every mel, as loud as that."""

    state = None

    def sample_rate_hz(self, spec):
        return spec.sample_rate_hz

    def __call__(self, mel_BFT, spec):
        level_BT = np.asarray(mel_BFT).mean(axis=1)
        seeds = (level_BT.sum(axis=1) * 1e4).astype(int)
        length = level_BT.shape[1] * spec.hop
        noise = [np.random.default_rng(seed).uniform(-1, 1, length) for seed in seeds]
        return np.repeat(level_BT, spec.hop, axis=1) * np.stack(noise).astype(np.float32)
