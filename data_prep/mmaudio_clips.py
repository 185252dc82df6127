"""Media files -> clips of one length as MMAudio's encoders see them."""

from collections.abc import Sequence
import dataclasses
import pathlib

import numpy as np

from data_prep import manifest
from foley_jax.media import audio as audio_io
from foley_jax.media import specs, video
from foley_jax.mmaudio import extraction
from foley_jax.mmaudio import rates as rates_lib

PEAK = 0.95  # of training clips
SILENCE = 1e-6
SLACK_S = 0.1  # that a file may be shorter: a last image and silence fill it up


@dataclasses.dataclass(frozen=True)
class Piece:
    """A clip to read.

    Attributes:
      entry: the stretch that it is cut from.
      id: unique in the set.
      start_s: where it begins in the file.
      has_video: whether the file has one.
    """

    entry: manifest.Entry
    id: str
    start_s: float
    has_video: bool


def cut(folder: pathlib.Path, entry: manifest.Entry, window_s: float) -> list[Piece]:
    """Returns the clips of a stretch, one behind the other; what is left at its end is no clip.

    Raises:
      video.MediaError: unreadable, without audio, or too short for one.
    """
    info = video.probe(folder / entry.file)
    if not info.has_audio:
        raise video.MediaError("no_audio", f"{entry.file}: has no audio track")
    end_s = info.duration_s if entry.end_s is None else min(entry.end_s, info.duration_s)
    count = int((end_s - entry.start_s + SLACK_S) / window_s)
    if count < 1:
        raise video.MediaError(
            "too_short",
            f"{entry.file}: {max(0.0, end_s - entry.start_s):.2f} s, wanted {window_s:g} s",
        )
    return [
        Piece(
            entry,
            entry.id if count == 1 else f"{entry.id}#{k}",
            entry.start_s + k * window_s,
            info.has_video,
        )
        for k in range(count)
    ]


def read(
    folder: pathlib.Path,
    piece: Piece,
    rates: rates_lib.Rates,
    window_s: float,
    videos: Sequence[specs.VideoSpec] = (rates_lib.CLIP_VIDEO, rates_lib.SYNC_VIDEO),
) -> extraction.Seen:
    """Reads a clip; audio of the split "train" is brought to a peak of 0.95, as the official is.

    Raises:
      video.MediaError: it cannot be read, is silent, or its video ends early.
    """
    path, lengths = folder / piece.entry.file, rates.lengths(window_s)
    rate_hz = rates.audio.sample_rate_hz
    audio_L = audio_io.load(
        path, rate_hz, start_s=piece.start_s, duration_s=lengths.samples / rate_hz
    )
    peak = np.abs(audio_L).max()
    if not SILENCE <= peak < np.inf:
        raise video.MediaError("silent", f"{piece.id}: its audio has a peak of {peak:g}")
    if piece.entry.split == "train":
        audio_L = audio_L * np.float32(PEAK / peak)
    text = ", ".join(piece.entry.label_names)
    if not piece.has_video:
        return extraction.Seen(audio_L, text=text)
    seen = []
    for spec in videos:
        frames = video.read_frames(path, spec, start_s=piece.start_s, duration_s=window_s)
        wanted = int(window_s * spec.fps)
        missing = wanted - len(frames)
        if missing > SLACK_S * spec.fps + 1:
            raise video.MediaError(
                "truncated", f"{piece.id}: {len(frames)} images of {wanted} at {spec.fps:g}/s"
            )
        seen.append(np.concatenate([frames, *[frames[-1:]] * max(0, missing)])[:wanted])
    return extraction.Seen(audio_L, *seen, text=text)
