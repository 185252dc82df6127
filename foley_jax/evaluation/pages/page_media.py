"""Media on a report's page: links, players, and mels with onset marks.

A file that cannot be read never stops the page: where its image would stand, the reason stands.

Axis letters: F mel bins, T mel frames.
"""

import html
import os
from pathlib import Path
import re
import shutil
import urllib.parse

from matplotlib import figure
import numpy as np

from foley_jax.evaluation import embedded, onsets
from foley_jax.media import audio as audio_io
from foley_jax.media import files, plots
from foley_jax.runtime import reasons

FOLDER = "page"  # beside index.html; images, and media that are copied
MOST_SECONDS = 30.0  # of an audio clip in an image
MOST_TIMES = 20  # onset times written out in an alternative text
DETECTOR = onsets.Detector()
IMAGE_INCHES, IMAGE_DPI = (9.0, 1.7), 100
IMAGE_TEXT = "0.5"  # grey is read on a light and on a dark page


def slug(name: str) -> str:
    """A name as part of a file name: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name)[:60]


class Links:
    """URLs of files as seen from the page.

    Args:
      out: folder of the page.
      copy: whether files are copied beside the page, so that its folder can be sent to somebody.
    """

    def __init__(self, out: Path, copy: bool):
        self.out, self.copy = out, copy
        self._copied: dict[Path, Path] = {}

    def to(self, path: Path) -> str:
        """Relative URL, quoted; copies the file first if that was asked for."""
        path = path.resolve()
        if self.copy:
            path = self._copy_of(path)
        relative = Path(os.path.relpath(path, self.out.resolve())).as_posix()
        return urllib.parse.quote(os.fsencode(relative))

    def _copy_of(self, path: Path) -> Path:
        if path not in self._copied:
            folder = self.out.resolve() / FOLDER / "media"
            folder.mkdir(parents=True, exist_ok=True)
            # the number keeps files of one name apart
            name = f"{len(self._copied):03d}_{slug(path.stem)}{path.suffix}"
            shutil.copyfile(path, folder / name)
            self._copied[path] = folder / name
        return self._copied[path]


def player(path: Path | None, links: Links, label: str) -> str:
    """HTML of a player, video or audio by the file's suffix; or why there is none."""
    if path is None:
        return sorry("there is no such file")
    if not path.is_file():
        return sorry(f"{path.name} is no longer there")
    tag = "video" if path.suffix.lower() in files.VIDEO_SUFFIXES else "audio"
    return (
        f'<{tag} controls preload="metadata" src="{html.escape(links.to(path))}" '
        f'aria-label="{html.escape(label)}"></{tag}>'
    )


def sorry(why: str) -> str:
    """HTML of a reason that stands where something could not be shown."""
    return f'<p class="sorry">{html.escape(why)}</p>'


class Mels:
    """Images of audio clips, drawn once per file and length.

    Args:
      out: folder of the page.
    """

    def __init__(self, out: Path):
        self.out = out
        self._heard: dict[Path, embedded.Heard | str] = {}
        self._drawn: dict[tuple[Path, Path | None, float], Path] = {}

    def pair(self, waveform: Path | None, reference: Path | None, title: str) -> tuple[str, str]:
        """HTML of the reference's mel and of the audio's, on one time axis.

        The reference's onsets are marked in both, the audio's in its own.

        Args:
          title: what the alternative texts call the item.
        Returns:
          The reference's image and the audio's; a reason in place of either.
        """
        true, own = self._hear(reference), self._hear(waveform)
        end_s = max((_length_s(h) for h in (true, own) if not isinstance(h, str)), default=0.0)
        # named even when there are none: the order of the names gives the marks their colours
        marks_s = {"reference": np.zeros(0) if isinstance(true, str) else true.onsets_s}
        cells = []
        for path, heard, beside, what in (
            (reference, true, None, "reference"),
            (waveform, own, reference, "sound"),
        ):
            if isinstance(heard, str):
                cells.append(sorry(heard))
                continue
            shown_s = {**marks_s, "sound": heard.onsets_s} if what == "sound" else marks_s
            image = self._draw((path, beside, end_s), heard, shown_s)
            alt = f"Log-mel of the {what} of {title}: {_times(heard.onsets_s)}"
            cells.append(self._image(image, alt))
        return cells[0], cells[1]

    def _hear(self, path: Path | None) -> embedded.Heard | str:
        if path is None:
            return "no audio: there is no such file"
        if path not in self._heard:
            self._heard[path] = _hear(path)
        return self._heard[path]

    def _draw(self, key: tuple, heard: embedded.Heard, marks_s: dict) -> Path:
        if key not in self._drawn:
            folder = self.out / FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{len(self._drawn):03d}_{slug(key[0].stem)}.png"
            fig = figure.Figure(figsize=IMAGE_INCHES, dpi=IMAGE_DPI, layout="constrained")
            axes = fig.subplots()
            plots.draw_mel(axes, heard.mel_FT, embedded.AUDIO.frame_s, marks_s=marks_s)
            # the page has the legend; here it would hide marks
            axes.get_legend().remove()
            axes.set_xlim(0.0, key[-1])
            axes.set_xlabel("seconds", fontsize=7)
            axes.tick_params(labelsize=7, colors=IMAGE_TEXT)
            for axis in (axes.xaxis, axes.yaxis):
                axis.label.set_color(IMAGE_TEXT)
            fig.savefig(path, transparent=True)
            self._drawn[key] = path
        return self._drawn[key]

    def _image(self, path: Path, alt: str) -> str:
        width, height = (round(inches * IMAGE_DPI) for inches in IMAGE_INCHES)
        return (
            f'<img loading="lazy" src="{FOLDER}/{path.name}" alt="{html.escape(alt)}" '
            f'width="{width}" height="{height}">'
        )


def _hear(path: Path) -> embedded.Heard | str:
    """Returns what is in a file's audio; or why nothing can be drawn."""
    rate_hz = embedded.AUDIO.sample_rate_hz
    try:
        audio_L = audio_io.load(path, rate_hz)
    except Exception as error:  # one bad file costs its image alone
        # the path itself says nothing to who reads the page elsewhere
        return f"no image of its audio: {reasons.of(error).replace(str(path), path.name)}"
    if len(audio_L) < embedded.AUDIO.n_fft:
        return f"no image of its audio: {len(audio_L)} samples, less than one window"
    return embedded.hear(audio_L[: round(MOST_SECONDS * rate_hz)], DETECTOR)


def _length_s(heard: embedded.Heard) -> float:
    return heard.mel_FT.shape[1] * embedded.AUDIO.frame_s


def _times(onsets_s: np.ndarray) -> str:
    """Onsets in words, for who cannot see the marks."""
    if not len(onsets_s):
        return "no onsets"
    more = ", ..." if len(onsets_s) > MOST_TIMES else ""
    listed = ", ".join(f"{time_s:.2f}" for time_s in onsets_s[:MOST_TIMES])
    return f"{len(onsets_s)} {'onset' if len(onsets_s) == 1 else 'onsets'} at {listed}{more} s"
