"""Landscape, as MM-Diffusion has it: nine kinds of sounding nature, in a folder each.

    python -m data_prep.sources.landscape landscape --out=landscape.jsonl
    python -m data_prep.prepare landscape shards --manifest=landscape.jsonl \\
        --fps=10 --size=64 --fit=letterbox

The folder is the official one, train/ and test/ with explosion/, fire_crackling/, ... in them, or
files whose names begin with the kind (raining_1.mp4). The kind is the label. There is no list of
the files: a kind without any video is what can be missing. MM-Diffusion trains and is evaluated on
the training set alone.
"""

import pathlib
import re

from data_prep import manifest, spans
from data_prep.sources import on_disk, report

KINDS = {  # folder, its other spellings in copies -> label
    "explosion": "explosion",
    "fire_crackling": "fire crackling",
    "fire_crakling": "fire crackling",
    "raining": "raining",
    "splashing_water": "splashing water",
    "squishing_water": "squishing water",
    "thunder": "thunder",
    "underwater_bubbling": "underwater bubbling",
    "waterfall_burbling": "waterfall burbling",
    "waterfall_bubbling": "waterfall burbling",
    "wind_noise": "wind noise",
}
LABELS = tuple(dict.fromkeys(KINDS.values()))
SPLITS = ("train", "test")


def kind_of(source: str) -> str | None:
    """The label of a file: from the folders it lies in, else from how its name begins."""
    path = pathlib.PurePosixPath(source)
    for name in (*reversed(path.parts[:-1]), path.stem):
        name = re.sub(r"[ -]", "_", name.lower())
        for kind, label in KINDS.items():
            if name == kind or (name.startswith(kind) and not name[len(kind)].isalpha()):
                return label
    return None


def search(stock: on_disk.Stock) -> report.Found:
    """Every video of a known kind, as a whole; kinds without one are missing."""
    entries, there = [], set()
    for source, name in zip(stock.sources, spans.names_of(stock.sources)):
        label = kind_of(source)
        if label is None:
            continue
        split = spans.split_of(source, "auto")
        there.add((split, label))
        file = stock.file_of(stock.take(source))
        entries.append(manifest.Entry(stock.file_of(name), file, split, labels=[label]))
    missing = [
        report.Missing(f"{split}/{label}", split, f"{split}/{label.replace(' ', '_')}/*.mp4")
        for split in SPLITS
        for label in LABELS
        if (split, label) not in there
    ]
    return report.Found(entries, missing)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = report.parser("landscape", __doc__)
    report.add_folder(parser)
    report.run(parser.parse_args(argv), search)


if __name__ == "__main__":
    main()
