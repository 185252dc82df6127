"""Images for people: a log-mel with its axes, and a sheet of sounding clips.

Axis letters: F mel bins, T mel frames or frames of a clip, H W C image, L audio samples.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import os

import librosa
from matplotlib import figure
from matplotlib import lines as lines_lib
import numpy as np

from foley_jax.media import container, specs, spool

SHOWN_FRAMES = 24  # of a clip on a contact sheet
SHOWN_COLUMNS = 4096  # of a log-mel
MARK_COLOURS = ("tab:red", "tab:green", "tab:orange")


@dataclasses.dataclass(frozen=True)
class SheetRow:
    """One clip of a contact sheet.

    Attributes:
      frames_THWC: uint8 RGB; frame i shows what is seen at i / fps seconds.
      audio_L: float in [-1, 1] or int16; may be shorter or longer than the image.
      sample_rate_hz: of the audio.
      fps: of the image.
      title: stands above the frames.
      marks_s: named times in seconds, drawn over the audio.
    """

    frames_THWC: np.ndarray
    audio_L: np.ndarray
    sample_rate_hz: int
    fps: float
    title: str = ""
    marks_s: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        shape, dtype = self.frames_THWC.shape, self.frames_THWC.dtype
        if len(shape) != 4 or shape[-1] != 3 or not shape[0] or dtype != np.uint8:
            raise ValueError(f"frames are {dtype}{list(shape)}, wanted uint8 [T, H, W, 3], T > 0")
        if self.audio_L.ndim != 1:
            raise ValueError(f"audio has shape {self.audio_L.shape}, wanted [samples] (mono)")


def save_contact_sheet(path: str | os.PathLike, rows: Sequence[SheetRow]) -> None:
    """Draws clips below each other into a PNG: frames side by side, their audio under them.

    Frame and audio stand on one time axis: frame i fills i / fps to (i + 1) / fps. Of more than
    `SHOWN_FRAMES` frames, so many are shown, each until the next one's time. The waveform
    is scaled to its own peak, which is written beside it.

    Raises:
      ValueError: no rows.
    """
    if not rows:
        raise ValueError("a contact sheet of no clips; give at least one row")
    fig = figure.Figure(figsize=(13, 1.7 * len(rows)), dpi=80, layout="constrained")
    axes = fig.subplots(2 * len(rows), 1, squeeze=False, height_ratios=(3, 2) * len(rows))[:, 0]
    for i, row in enumerate(rows):
        _draw_frames(axes[2 * i], row)
        _draw_wave(axes[2 * i + 1], row, legend=i == 0)
    axes[-1].set_xlabel("seconds", fontsize=7)
    fig.savefig(path)


def _draw_frames(axes, row: SheetRow) -> None:
    length, height = row.frames_THWC.shape[:2]
    # of long clips, evenly chosen frames: more would be squeezed to lines
    count = min(length, SHOWN_FRAMES)
    frames = row.frames_THWC[np.arange(count) * length // count]
    strip = frames.transpose(1, 0, 2, 3).reshape(height, -1, 3)  # [T, H, W, 3] -> [H, T*W, 3]
    extent = (0.0, length / row.fps, 0.0, 1.0)
    axes.imshow(strip, aspect="auto", extent=extent, interpolation="nearest")
    for cut in range(1, count):
        axes.axvline(cut / count * length / row.fps, color="white", lw=0.6)
    axes.set_axis_off()
    _set_title(axes, row.title, fontsize=7, loc="left", pad=2)


def _draw_wave(axes, row: SheetRow, *, legend: bool) -> None:
    audio = row.audio_L
    audio = audio / 32768 if audio.dtype == np.int16 else np.asarray(audio, np.float64)
    peak = float(np.abs(audio).max(initial=0.0))
    times_s = np.arange(len(audio)) / row.sample_rate_hz
    axes.plot(times_s, audio, color="tab:blue", lw=0.4)
    for k, marks_s in enumerate(row.marks_s.values()):
        colour = MARK_COLOURS[k % len(MARK_COLOURS)]
        # marks of one kind share the lower or the upper part, so that equal times show both
        low, high = (k % 2) / 2, (k % 2) / 2 + 0.5
        for mark_s in marks_s:
            axes.axvline(mark_s, low, high, color=colour, lw=1.6)
    axes.set_xlim(0.0, len(row.frames_THWC) / row.fps)
    axes.set_ylim(-(peak or 1.0), peak or 1.0)
    axes.set_yticks([peak or 1.0], [f"{peak:.2g}"], fontsize=6)
    axes.tick_params(axis="x", labelsize=6, length=2)
    if legend and row.marks_s:
        lines = [
            lines_lib.Line2D([], [], color=MARK_COLOURS[k % len(MARK_COLOURS)], label=name)
            for k, name in enumerate(row.marks_s)
        ]
        axes.legend(handles=lines, loc="upper right", fontsize=6, framealpha=0.6)


def save_mel(
    path: str | os.PathLike,
    mel_FT: np.ndarray,
    frame_s: float,
    *,
    title: str = "",
    marks_s: dict[str, np.ndarray] | None = None,
) -> None:
    """Draws a log-mel into a PNG; `marks_s` adds named onset times as ticks on top.

    Of more than `SHOWN_COLUMNS` frames, the means of several are drawn.
    """
    together = -(-mel_FT.shape[1] // SHOWN_COLUMNS)
    if together > 1:
        mel_FT, frame_s = _means(mel_FT, together), together * frame_s
    fig = figure.Figure(figsize=(9, 2.6), dpi=90, layout="constrained")
    axes = fig.subplots()
    draw_mel(axes, mel_FT, frame_s, marks_s=marks_s)
    axes.set_xlabel("seconds")
    _set_title(axes, title, fontsize=9)
    fig.savefig(path)


def _set_title(axes, title: str, **how) -> None:
    """Titles are names of files: no formulas, and of any bytes."""
    axes.set_title(container.printable(title), parse_math=False, **how)


def _means(mel_FT: np.ndarray, together: int) -> np.ndarray:
    """Means of so many frames each, float32 [F, ceil(T / together)]."""
    means = []
    for at in range(0, mel_FT.shape[1], together * SHOWN_COLUMNS // 8):
        some_FT = spool.part(mel_FT, slice(None), slice(at, at + together * SHOWN_COLUMNS // 8))
        cuts = np.arange(0, some_FT.shape[1], together)
        counts = np.diff([*cuts, some_FT.shape[1]])
        means.append(np.add.reduceat(some_FT, cuts, axis=1) / counts)
    return np.concatenate(means, axis=1, dtype=np.float32)


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
