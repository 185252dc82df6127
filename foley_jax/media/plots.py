"""Pictures of sound for people: a log-mel with its axes."""

import os

import librosa
from matplotlib import figure
import numpy as np

from foley_jax.media import specs


def save_mel(
    path: str | os.PathLike,
    mel_FT: np.ndarray,
    frame_s: float,
    *,
    title: str = "",
    marks_s: dict[str, np.ndarray] | None = None,
) -> None:
    """Draws a log-mel into a PNG; `marks_s` adds named onset times as ticks on top."""
    fig = figure.Figure(figsize=(9, 2.6), dpi=90, layout="constrained")
    axes = fig.subplots()
    draw_mel(axes, mel_FT, frame_s, marks_s=marks_s)
    axes.set_xlabel("seconds")
    axes.set_title(title, fontsize=9)
    fig.savefig(path)


def draw_mel(axes, mel_FT, frame_s, *, marks_s=None) -> None:
    """Draws into existing axes: frequency in Hz upwards, time in seconds."""
    num_mels, num_frames = mel_FT.shape
    extent = (0.0, num_frames * frame_s, 0, num_mels)
    axes.imshow(
        mel_FT, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=0.0, vmax=1.0
    )
    spec = specs.AudioSpec()
    centres_hz = librosa.mel_frequencies(num_mels + 2, fmin=spec.fmin_hz, fmax=spec.fmax_hz)[1:-1]
    bins = np.linspace(0, num_mels - 1, 4).round().astype(int)
    axes.set_yticks(bins + 0.5, [f"{centres_hz[b]:.0f}" for b in bins], fontsize=7)
    axes.set_ylabel("Hz", fontsize=7)
    for row, (name, times_s) in enumerate((marks_s or {}).items()):
        colour = ("cyan", "lime", "white")[row % 3]
        height = num_mels * (0.97 - 0.08 * row)
        axes.plot(times_s, np.full(len(times_s), height), "v", color=colour, ms=4, label=name)
    if marks_s:
        axes.legend(loc="upper right", fontsize=6, framealpha=0.6)
