"""Audio clips of blows at known times, in folders, for tests of evaluation."""

from pathlib import Path

import numpy as np

from foley_jax.media import audio as audio_io

RATE_HZ = 16000
SECONDS = 3.0


def waveform(times_s, seconds=SECONDS, seed=0):
    """Decaying noise at every time, in a little noise; float32 at `RATE_HZ`."""
    rng = np.random.default_rng(seed)
    audio_L = 1e-5 * rng.normal(size=round(seconds * RATE_HZ))
    for start in (np.asarray(times_s) * RATE_HZ).astype(int):
        n = np.arange(len(audio_L) - start)
        audio_L[start:] += 0.2 * np.exp(-n / (0.06 * RATE_HZ)) * rng.normal(size=len(n))
    return audio_L.astype(np.float32)


def times(seed):
    """Three times, more than half a second apart."""
    return np.cumsum(np.random.default_rng(seed).uniform(0.55, 0.9, 3))


def write(folder: Path, audio_clips) -> Path:
    """A folder of wav files from name -> waveform."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, audio_L in audio_clips.items():
        audio_io.write_wav(folder / f"{name}.wav", audio_L, RATE_HZ)
    return folder
