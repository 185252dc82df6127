"""EPIC-Kitchens-100: stretches of long videos, from the official tables of actions or audio clips.

    python -m data_prep.sources.epic_kitchens \\
        EPIC_100_train.csv EPIC_100_validation.csv VIDEOS --out=epic.jsonl
    python -m data_prep.sources.epic_kitchens EPIC_100_train.csv VIDEOS \\
        --sounding EPIC_Sounds_train.csv          # only actions during which something sounds
    python -m data_prep.sources.epic_kitchens EPIC_Sounds_train.csv VIDEOS    # the audio clips
    python -m data_prep.prepare VIDEOS shards --manifest=epic.jsonl

Videos are named by the official video id, P01_01.MP4, in any subfolder (P01/videos/P01_01.MP4 as
the official downloader has them). The name of a table gives its split: train, val (validation) or
test. Labels of actions are verb, nouns and narration, of audio clips their class and description;
the test tables have none. Actions are often shorter than what models are trained on:
`--at_least=10` makes every stretch at least that long, around its middle. Nothing is downloaded.
"""

import argparse
import ast
import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator
import csv
import dataclasses
import pathlib
import re

from data_prep import manifest
from data_prep.sources import on_disk, report

ID_COLUMNS = ("narration_id", "annotation_id")  # of actions; of audio clips
COLUMNS = ("video_id", "start_timestamp", "stop_timestamp")
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Segment:
    """One row of a table: an action, or an audio clip."""

    id: str
    video_id: str
    start_s: float
    stop_s: float
    split: str
    labels: dict[str, str | list[str]]


def read(path: pathlib.Path) -> Iterator[Segment]:
    """Rows of an official table.

    Raises:
      ValueError: it is not one, its name gives no split, or a row is not as it must be.
    """
    split = split_of(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or ()
        id_column = next((name for name in ID_COLUMNS if name in columns), None)
        if id_column is None or not set(COLUMNS) <= set(columns):
            raise ValueError(
                f"{path} has the columns {', '.join(columns)}; wanted narration_id or "
                f"annotation_id, {', '.join(COLUMNS)}: a table of actions or audio clips"
            )
        for row in rows:
            try:
                start_s, stop_s = (seconds(row[name]) for name in COLUMNS[1:])
                labels = _labels(row)
            except (ValueError, SyntaxError, TypeError) as error:
                raise ValueError(f"{path}, line {rows.line_num}: {error}") from error
            yield Segment(row[id_column], row["video_id"], start_s, stop_s, split, labels)


def split_of(path: pathlib.Path) -> str:
    """The split that the name of a table gives.

    Raises:
      ValueError: it gives none.
    """
    for word in path.stem.lower().split("_"):
        if word in SPLITS:
            return SPLITS[word]
    raise ValueError(f"{path.name}: wanted a name with {', '.join(SPLITS)} in it, for the split")


def seconds(timestamp: str) -> float:
    """HH:mm:ss.SSS -> seconds.

    Raises:
      ValueError: it is not that.
    """
    match = re.fullmatch(r"(\d+):([0-5]\d):([0-5]\d(?:\.\d*)?)", timestamp)
    if match is None:
        raise ValueError(f"time is {timestamp!r}, wanted HH:mm:ss.SSS")
    hours, minutes, rest = match.groups()
    return round(3600 * int(hours) + 60 * int(minutes) + float(rest), 6)


def _labels(row: dict[str, str]) -> dict[str, str | list[str]]:
    """verb, nouns, narration of an action; class and description of audio; none in a test."""
    labels: dict[str, str | list[str]] = {}
    for column in ("verb", "class", "narration", "description"):
        if row.get(column):
            labels[column] = row[column]
    if row.get("all_nouns"):
        labels["nouns"] = [str(noun) for noun in ast.literal_eval(row["all_nouns"])]
    elif row.get("noun"):
        labels["nouns"] = [row["noun"]]
    return labels


class Sounds:
    """When something sounds in which video."""

    def __init__(self, segments: Iterable[Segment]):
        by_video: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
        for one in segments:
            name = str(one.labels.get("class", "sound"))
            by_video[one.video_id].append((one.start_s, one.stop_s, name))
        self._by_video = {video: sorted(audio_clips) for video, audio_clips in by_video.items()}

    def during(self, video_id: str, start_s: float, stop_s: float) -> list[str]:
        """Classes of the audio clips that are heard in a stretch, in order, each once."""
        audio_clips = self._by_video.get(video_id, [])
        begun = audio_clips[: bisect.bisect_left(audio_clips, stop_s, key=lambda audio: audio[0])]
        return list(dict.fromkeys(name for _, stop, name in begun if stop > start_s))


def search(args: argparse.Namespace, stock: on_disk.Stock) -> report.Found:
    """Finds the video of every stretch."""
    audio_clips = Sounds(s for path in args.sounding for s in read(path)) if args.sounding else None
    entries, missing, silent = [], [], 0
    for segment in (s for path in args.tables for s in read(path)):
        labels = segment.labels
        if audio_clips is not None:
            heard = audio_clips.during(segment.video_id, segment.start_s, segment.stop_s)
            if not heard:
                silent += 1
                continue
            labels = {**labels, "sounds": heard}
        source = stock.find([segment.video_id])
        if source is None:
            wanted = f"{segment.video_id}.MP4"
            missing.append(report.Missing(segment.id, segment.split, wanted))
            continue
        if segment.stop_s <= segment.start_s:  # a few actions of the official table
            detail = f"lasts from {segment.start_s:g} to {segment.stop_s:g} s"
            missing.append(report.Missing(segment.id, segment.split, source, "no_duration", detail))
            continue
        start_s, end_s = grow(segment.start_s, segment.stop_s, args.at_least)
        file = stock.file_of(source)
        entries.append(manifest.Entry(segment.id, file, segment.split, start_s, end_s, labels))
    if silent:
        print(f"{silent} actions without an audio clip are left out")
    return report.Found(entries, missing)


def grow(start_s: float, stop_s: float, at_least_s: float) -> tuple[float, float]:
    """A stretch of at least this length around the middle, not before the start of the video."""
    more_s = max(0.0, at_least_s - (stop_s - start_s))
    start_s = max(0.0, start_s - more_s / 2)
    return round(start_s, 6), round(max(stop_s, start_s + at_least_s), 6)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = report.parser("epic_kitchens", __doc__)
    parser.add_argument("tables", type=pathlib.Path, nargs="+", help="official CSV files")
    report.add_folder(parser)
    parser.add_argument(
        "--sounding",
        type=pathlib.Path,
        action="append",
        help="keep what overlaps an audio clip of this EPIC-SOUNDS table; may be given again",
    )
    parser.add_argument(
        "--at_least", type=float, default=0.0, help="seconds that a stretch has at least (0)"
    )
    args = parser.parse_args(argv)
    report.run(args, lambda stock: search(args, stock))


if __name__ == "__main__":
    main()
