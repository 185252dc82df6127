"""Ten seconds of a YouTube video, under the names that downloaders give them."""

import argparse
from collections.abc import Iterable, Iterator
import dataclasses
import re

from data_prep import manifest
from data_prep.sources import on_disk, report
from foley_jax.media import video
from foley_jax.runtime import reasons

ID_LENGTH = 11
PREFIXES = ("", "Y", "video_")


@dataclasses.dataclass(frozen=True)
class Segment:
    """Request of one row of an official file.

    Attributes:
      youtube_id: 11 letters, digits, `-` and `_`.
      start_s, end_s: in the video on YouTube.
      split: where it goes.
      labels: what is heard.
    """

    youtube_id: str
    start_s: float
    end_s: float
    split: str
    labels: manifest.Labels

    @property
    def id(self) -> str:
        """The official name: id and start, `abcdefghijk_000030`."""
        if self.start_s == int(self.start_s):
            return f"{self.youtube_id}_{int(self.start_s):06d}"
        return f"{self.youtube_id}_{self.start_s:010.3f}"

    def clip_stems(self) -> Iterator[str]:
        """Usual names of a file that holds just the segment, the official one first."""
        yield self.id
        start, end = int(self.start_s), int(self.end_s)
        times = (
            f"_{start:06d}",
            f"_{start}",
            f"_{start}_{end}",
            f"_{start:06d}_{end:06d}",
            f"_{1000 * self.start_s:.0f}_{1000 * self.end_s:.0f}",
            f"_{self.start_s:.3f}_{self.end_s:.3f}",
            f"_{self.start_s:.3f}",
            f"_{self.start_s:07.3f}",
            f"_{self.start_s:.1f}_{self.end_s:.1f}",
            f"_{1000 * self.start_s:.0f}",
            f"_{start}-{end}",
            f"-{start}-{end}",
        )
        for prefix in PREFIXES:
            yield prefix + self.id
            for time in times:
                yield prefix + self.youtube_id + time

    def bare_stems(self) -> list[str]:
        """Names that may mean the segment or the whole video."""
        return [prefix + self.youtube_id for prefix in PREFIXES]


def search(segments: Iterable[Segment], stock: on_disk.Stock, *, whole: str) -> report.Found:
    """Finds the file of every segment.

    Args:
      segments: in the order of the manifest; a second one of the same id is left out.
      stock: the videos.
      whole: what a file named by the id alone holds: "yes" the whole video, "no" the segment,
        "auto" the whole video if it lasts longer than the segment.
    """
    there = _ids(stock)
    entries, missing, seen = [], [], set()
    for segment in segments:
        if segment.id in seen:
            continue
        seen.add(segment.id)
        found = _find(segment, stock, whole) if segment.youtube_id in there else None
        if isinstance(found, manifest.Entry):
            entries.append(found)
        else:
            wanted = f"{segment.id}.mp4"
            missing.append(found or report.Missing(segment.id, segment.split, wanted))
    return report.Found(entries, missing)


def _ids(stock: on_disk.Stock) -> set[str]:
    """Everything that may be a YouTube id: so most rows need not try every name."""
    return {
        stem[len(prefix) : len(prefix) + ID_LENGTH]
        for stem in stock.stems
        for prefix in PREFIXES
        if stem.startswith(prefix)
    }


def _find(
    segment: Segment, stock: on_disk.Stock, whole: str
) -> manifest.Entry | report.Missing | None:
    source, start_s = stock.find(segment.clip_stems()), 0.0
    if source is None:
        source = stock.find(segment.bare_stems())
        if source is None:
            return None
        if whole == "yes":
            start_s = segment.start_s
        elif whole == "auto":
            try:
                start_s = _start_in(segment, video.probe(stock.videos / source).duration_s)
            except Exception as error:  # one bad file never stops the rest
                reason = error.reason if isinstance(error, video.MediaError) else "error"
                why = f"{source}: {reasons.of(error)}"
                return report.Missing(segment.id, segment.split, f"{segment.id}.mp4", reason, why)
    return manifest.Entry(
        id=segment.id,
        file=stock.file_of(source),
        split=segment.split,
        start_s=start_s,
        end_s=start_s + segment.end_s - segment.start_s,
        labels=segment.labels,
    )


def _start_in(segment: Segment, lasts_s: float) -> float:
    """Where the segment starts in a file of this length, which is itself or the whole video."""
    length_s, slack_s = segment.end_s - segment.start_s, on_disk.SHORTEST_S
    if lasts_s <= length_s + slack_s:
        return 0.0
    if lasts_s + slack_s >= segment.end_s:
        return segment.start_s
    raise video.MediaError(
        "too_short",
        f"lasts {lasts_s:.2f} s, which is neither the segment ({length_s:g} s) nor a video up to "
        f"its end ({segment.end_s:g} s); say --whole=no if the segment begins the file",
    )


def check_id(text: str) -> str:
    """A YouTube id as it must be.

    Raises:
      ValueError: it is not 11 letters, digits, `-` and `_`.
    """
    if not re.fullmatch(rf"[\w-]{{{ID_LENGTH}}}", text, re.ASCII):
        raise ValueError(f"{text!r} is no YouTube id (11 letters, digits, '-' and '_')")
    return text


def add_whole(parser: argparse.ArgumentParser) -> None:
    """Adds the argument `--whole`."""
    parser.add_argument(
        "--whole",
        choices=("auto", "yes", "no"),
        default="auto",
        help="a file named by the YouTube id alone holds the whole video: auto looks how long it "
        "lasts (auto)",
    )
