"""Any folder of videos: its split by folder names or by a hash, its labels by folder names.

    python -m data_prep.sources.folder VIDEOS --out=manifest.jsonl
    python -m data_prep.sources.folder VIDEOS --labels      # VIDEOS/train/dog barking/x.mp4
    python -m data_prep.prepare VIDEOS shards --manifest=manifest.jsonl

A folder named train, test or val (or test_hard, ...) gives the split, else a hash of the path does:
90 % train, 10 % test. This is what prepare does without a manifest; a manifest can be looked
through, changed and joined with others before.
"""

import pathlib

from data_prep import manifest, spans
from data_prep.sources import on_disk, report


def search(stock: on_disk.Stock, *, split: str = "auto", labels: bool = False) -> report.Found:
    """Every video as a whole.

    Args:
      stock: the videos.
      split: "auto", or one name for everything.
      labels: the folder that a video lies in is its label, if it is not that of the split.
    """
    entries = []
    for source, name in zip(stock.sources, spans.names_of(stock.sources)):
        there = spans.split_of(source, split)
        parent = pathlib.PurePosixPath(source).parent.name
        entries.append(
            manifest.Entry(
                id=stock.file_of(name),
                file=stock.file_of(stock.take(source)),
                split=there,
                labels=[parent] if labels and parent not in ("", there) else [],
            )
        )
    return report.Found(entries, [])


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = report.parser("folder", __doc__)
    report.add_folder(parser)
    parser.add_argument("--split", default="auto", help="auto, or one name for everything (auto)")
    parser.add_argument("--labels", action="store_true", help="folders are labels")
    args = parser.parse_args(argv)
    report.run(args, lambda stock: search(stock, split=args.split, labels=args.labels))


if __name__ == "__main__":
    main()
