"""AudioSet-V2A, what Diff-Foley's CAVP learns from besides VGGSound: AudioSet without speech.

    python -m data_prep.sources.audioset CSVS ontology.json VIDEOS --out=audioset.jsonl
    python -m data_prep.prepare VIDEOS shards --manifest=audioset.jsonl

CSVS is a folder with the official balanced_train_segments.csv, unbalanced_train_segments.csv and
eval_segments.csv, or some of them; eval becomes split test. ontology.json is the official one.

The rule: most of AudioSet is tagged Music or Speech, and speech cannot be told from a video, so
Diff-Foley takes all tags except Speech, and of the clips with the tag Music a part. In code: a clip
with a tag of speech is left out; of the others, those with the tag Music are cut down to `--music`
training clips (80000), and all the rest is kept. 80000 fits the official training code: it counts
567980 videos, in 32 shards of VGGSound (about 183 K), 32 of AudioSet and 8 of AudioSet's music,
which makes the latter a fifth of what is not VGGSound. Which music was taken is not known: here it
is the clips with the smallest SHA-256 of their YouTube id, so that the choice depends on the
official files alone. Music is the tag itself, not the instruments under it in the ontology, among
which are bicycle bells and church bells.

    --rule=default     speech is the tag Speech and all tags under it in the ontology: a clip of
                       "Conversation" alone is speech
    --rule=official    speech is the tag Speech alone, as the rule has it by the word

Names of files are looked for as for VGGSound (`--help` there lists them). Nothing is downloaded:
audioset.missing.jsonl names what the rule wants and the folder does not have. Clips of VGGSound,
and its test clips above all, are left out with `--without=vggsound.csv`.
"""

import argparse
from collections.abc import Iterable, Iterator
import csv
import hashlib
import heapq
import json
import pathlib

from data_prep.sources import on_disk, report, youtube

FILES = {  # official name -> split
    "balanced_train_segments.csv": "train",
    "unbalanced_train_segments.csv": "train",
    "eval_segments.csv": "test",
}
HEADING = "# YTID, start_seconds, end_seconds, positive_labels"  # the third line of each
SPEECH, MUSIC = "Speech", "Music"
NUM_MUSIC = 80_000
RULES = ("default", "official")


class Ontology:
    """The official ontology.json: tags, their names, and which lie under which.

    Raises:
      ValueError: it is not that file.
    """

    def __init__(self, path: pathlib.Path):
        try:
            nodes = json.loads(path.read_text(encoding="utf-8"))
            self.names: dict[str, str] = {node["id"]: node["name"] for node in nodes}
            self._children = {node["id"]: node["child_ids"] for node in nodes}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not AudioSet's ontology.json: {error!r}") from error

    def tag(self, name: str) -> str:
        """The tag of a name, "/m/09x0r" for "Speech"."""
        for tag, its_name in self.names.items():
            if its_name == name:
                return tag
        raise ValueError(f"the ontology has no tag named {name!r}")

    def under(self, tag: str) -> set[str]:
        """A tag and all tags under it."""
        found, waiting = set(), [tag]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += self._children.get(one, [])
        return found


def read(path: pathlib.Path, split: str) -> Iterator[youtube.Segment]:
    """Rows of one official file; labels are tags.

    Raises:
      ValueError: a row is not as it must be; the message gives its line.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, skipinitialspace=True)
        for row in rows:
            if not row or row[0].startswith("#"):
                continue
            try:
                youtube_id, start, end, *tags = row
                tags = [tag.strip() for part in tags for tag in part.split(",") if tag.strip()]
                start_s, end_s = float(start), float(end)
                if not 0 <= start_s < end_s:
                    raise ValueError(f"the clip is from {start_s} to {end_s} s")
                youtube.check_id(youtube_id)
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {rows.line_num}: {error}; wanted {HEADING[2:]}"
                ) from error
            yield youtube.Segment(youtube_id, start_s, end_s, split, tags)


def select(
    segments: Iterable[youtube.Segment],
    ontology: Ontology,
    *,
    rule: str = "default",
    num_music: int = NUM_MUSIC,
) -> list[youtube.Segment]:
    """The rule of AudioSet-V2A, see the top of this file.

    Args:
      segments: rows of the official files, labels are tags.
      ontology: to know what is speech.
      rule: one of `RULES`.
      num_music: at most so many training clips with music; of other splits all are kept.
    Returns:
      What is kept, in order, labels as names. Tags that the ontology does not know stay as they
      are.
    Raises:
      ValueError: unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}, wanted one of {RULES}")
    speech, music = ontology.tag(SPEECH), ontology.tag(MUSIC)
    spoken = ontology.under(speech) if rule == "default" else {speech}
    kept = [segment for segment in segments if not spoken.intersection(segment.labels)]
    pool = (s.youtube_id for s in kept if s.split == "train" and music in s.labels)
    chosen = set(heapq.nsmallest(num_music, pool, key=_draw))
    return [
        youtube.Segment(
            s.youtube_id,
            s.start_s,
            s.end_s,
            s.split,
            [ontology.names.get(tag, tag) for tag in s.labels],
        )
        for s in kept
        if s.split != "train" or music not in s.labels or s.youtube_id in chosen
    ]


def _draw(youtube_id: str) -> bytes:
    return hashlib.sha256(youtube_id.encode()).digest()


def read_folder(csvs: pathlib.Path) -> list[youtube.Segment]:
    """All rows of the official files in a folder.

    Raises:
      ValueError: none of them is there.
    """
    paths = {csvs / name: split for name, split in FILES.items() if (csvs / name).is_file()}
    if not paths:
        raise ValueError(f"{csvs} holds none of AudioSet's files: {', '.join(FILES)}")
    for name in FILES:
        if csvs / name not in paths:
            print(f"{csvs / name} is not there: goes without its clips")
    return [segment for path, split in paths.items() for segment in read(path, split)]


def ids_of(path: pathlib.Path) -> set[str]:
    """YouTube ids in the first column of a CSV, e.g. vggsound.csv."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return {row[0] for row in csv.reader(file) if row}


def search(args: argparse.Namespace, stock: on_disk.Stock) -> report.Found:
    """Reads the official files, applies the rule, looks for the videos."""
    segments = read_folder(args.csvs)
    total = len(segments)
    if args.without is not None:
        unwanted = ids_of(args.without)
        segments = [segment for segment in segments if segment.youtube_id not in unwanted]
    kept = select(segments, Ontology(args.ontology), rule=args.rule, num_music=args.music)
    print(f"{len(kept)} of {total} clips are of AudioSet-V2A")
    return youtube.search(kept, stock, whole=args.whole)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = report.parser("audioset", __doc__)
    parser.add_argument("csvs", type=pathlib.Path, help="folder of the official CSV files")
    parser.add_argument("ontology", type=pathlib.Path, help="ontology.json")
    report.add_folder(parser)
    youtube.add_whole(parser)
    parser.add_argument("--rule", choices=RULES, default="default", help="what is speech (default)")
    parser.add_argument(
        "--music", type=int, default=NUM_MUSIC, help=f"training clips with music ({NUM_MUSIC})"
    )
    parser.add_argument("--without", type=pathlib.Path, help="CSV of YouTube ids to leave out")
    args = parser.parse_args(argv)
    report.run(args, lambda stock: search(args, stock))


if __name__ == "__main__":
    main()
