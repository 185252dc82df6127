"""The embedded data set of `data_prep.scenes` with texts: what is heard in every scene.

    python -m data_prep.sources.scenes VIDEOS --out=manifest.jsonl

Labels are the materials that are struck and the movers that hum ("glass", "rotor"), from the JSON
beside every video; of several, "two objects" comes first.
"""

import json
import pathlib

from data_prep import manifest, spans
from data_prep.sources import on_disk, report

COUNTS = {2: "two objects", 3: "three objects"}


def labels_of(truth: dict) -> list[str]:
    """Returns the labels of a scene's true events."""
    kinds = {event["material"] for event in truth["events"]}
    kinds |= {source["kind"] for source in truth["continuous"]}
    count = [COUNTS.get(len(kinds), "many objects")] if len(kinds) > 1 else []
    return [*count, *sorted(kinds)]


def search(stock: on_disk.Stock, folder: pathlib.Path) -> report.Found:
    """Every scene as a whole; a video without its truth is missing.

    Args:
      stock: the videos.
      folder: where they are.
    """
    entries, missing = [], []
    for source, name in zip(stock.sources, spans.names_of(stock.sources)):
        split, clip_id = spans.split_of(source, "auto"), stock.file_of(name)
        truth = (folder / source).with_suffix(".json")
        if not truth.is_file():
            missing.append(report.Missing(clip_id, split, truth.name))
            continue
        labels = labels_of(json.loads(truth.read_text()))
        file = stock.file_of(stock.take(source))
        entries.append(manifest.Entry(id=clip_id, file=file, split=split, labels=labels))
    return report.Found(entries, missing)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = report.parser("scenes", __doc__)
    report.add_folder(parser)
    args = parser.parse_args(argv)
    report.run(args, lambda stock: search(stock, args.videos))


if __name__ == "__main__":
    main()
