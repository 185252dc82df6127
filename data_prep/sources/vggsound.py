"""VGGSound: from vggsound.csv and a folder of downloads to a manifest.

    python -m data_prep.sources.vggsound vggsound.csv VIDEOS --out=vggsound.jsonl
    python -m data_prep.prepare VIDEOS shards --manifest=vggsound.jsonl

The official file has no heading; its columns are YouTube id, start in seconds, label, and train or
test. Every clip lasts 10 s. A clip is looked for under the names that downloaders give it, in any
subfolder and with any suffix of a video:

    ID_000030.mp4      the official name: id, start with six digits
    ID_30.mp4  ID_30_40.mp4  ID_30000_40000.mp4  ID_30.000_40.000.mp4  ...
    ID.mp4             ten seconds, or the whole video: --whole=auto looks how long it lasts

Nothing is downloaded. What is not there goes to vggsound.missing.jsonl, with the name wanted.
"""

import argparse
from collections.abc import Iterator
import csv
import pathlib

from data_prep.sources import report, youtube

CLIP_S = 10.0
COLUMNS = ("YouTube ID", "start seconds", "label", "train/test split")  # as its README names them


def read(path: pathlib.Path) -> Iterator[youtube.Segment]:
    """Rows of vggsound.csv; a heading, which some copies have, is passed over.

    Raises:
      ValueError: a row is not as it must be; the message gives its line.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        for row in rows:
            if not row or (rows.line_num == 1 and _is_heading(row)):
                continue
            try:
                youtube_id, start, label, split = row
                if split not in ("train", "test"):
                    raise ValueError(f"split is {split!r}, wanted train or test")
                start_s = float(int(start))
                youtube.check_id(youtube_id)
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {rows.line_num}: {error}; wanted {', '.join(COLUMNS)}"
                ) from error
            yield youtube.Segment(youtube_id, start_s, start_s + CLIP_S, split, [label])


def _is_heading(row: list[str]) -> bool:
    return len(row) == len(COLUMNS) and not row[1].strip().isdigit()


def _parser() -> argparse.ArgumentParser:
    parser = report.parser("vggsound", __doc__)
    parser.add_argument("csv", type=pathlib.Path, help="vggsound.csv")
    report.add_folder(parser)
    youtube.add_whole(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    args = _parser().parse_args(argv)
    report.run(args, lambda stock: youtube.search(read(args.csv), stock, whole=args.whole))


if __name__ == "__main__":
    main()
