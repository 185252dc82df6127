"""AIST++ (crop), as MM-Diffusion has it: dances, with the official names of AIST.

    python -m data_prep.sources.aist AIST++_crop --out=aist.jsonl
    python -m data_prep.sources.aist VIDEOS --splits=aist_plusplus_final/splits
    python -m data_prep.prepare AIST++_crop shards --manifest=aist.jsonl \\
        --fps=10 --size=64 --fit=letterbox

Names say what is danced: gBR_sBM_c01_d04_mBR0_ch01.mp4 is genre BR (break), situation, camera,
dancer, music and choreography; whatever follows is the number of a crop. The label is the genre.
MM-Diffusion's folder has train/ and test/; it trains and is evaluated on the first alone.

With `--splits`, the official lists of AIST++ give the splits instead: crossmodal_train.txt,
crossmodal_val.txt and crossmodal_test.txt, without what ignore_list.txt beside them or above them
names. They name a sequence once for all cameras (cAll); a sequence without a video is missing.
"""

import pathlib
import re

from data_prep import manifest, spans
from data_prep.sources import on_disk, report

GENRES = {  # of the AIST dance video database
    "BR": "break",
    "PO": "pop",
    "LO": "lock",
    "MH": "middle hip-hop",
    "LH": "LA-style hip-hop",
    "HO": "house",
    "WA": "waack",
    "KR": "krump",
    "JS": "street jazz",
    "JB": "ballet jazz",
}
NAME = re.compile(r"(g([A-Z]{2})_s[A-Z]{2})_c(?:\d\d|All)_(d\d\d_m[A-Z]{2}\d_ch\d\d)(?![0-9])")
LISTS = {split: f"crossmodal_{split}.txt" for split in ("train", "val", "test")}
IGNORED = "ignore_list.txt"


def sequence_of(name: str) -> str | None:
    """The official sequence of a file name, for all cameras; None if it is no name of AIST."""
    match = NAME.match(name)
    return None if match is None else f"{match[1]}_cAll_{match[3]}"


def genre_of(name: str) -> str | None:
    """Returns what is danced; None if it is no name of AIST."""
    match = NAME.match(name)
    return None if match is None else GENRES.get(match[2])


def read_splits(folder: pathlib.Path) -> dict[str, str]:
    """Sequence -> split, from the official lists.

    Raises:
      ValueError: none of them is there, or a line is no sequence.
    """
    splits = {}
    for split, name in LISTS.items():
        if (folder / name).is_file():
            splits.update(dict.fromkeys(_lines(folder / name), split))
    if not splits:
        raise ValueError(f"{folder} holds none of {', '.join(LISTS.values())}")
    for path in (folder / IGNORED, folder.parent / IGNORED):
        if path.is_file():
            for sequence in _lines(path):
                splits.pop(sequence, None)
    return splits


def _lines(path: pathlib.Path) -> list[str]:
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    for line in lines:
        if sequence_of(line) != line:
            raise ValueError(
                f"{path} holds {line!r}, wanted sequences like gBR_sBM_cAll_d04_mBR0_ch01"
            )
    return lines


def search(stock: on_disk.Stock, splits: dict[str, str] | None = None) -> report.Found:
    """Every video with a name of AIST, as a whole.

    Args:
      stock: the videos.
      splits: sequence -> split; None is by folder. Sequences that are not in it are left out.
    """
    entries, there = [], set()
    for source, name in zip(stock.sources, spans.names_of(stock.sources)):
        stem = pathlib.PurePosixPath(source).stem
        sequence, genre = sequence_of(stem), genre_of(stem)
        if genre is None or (splits is not None and sequence not in splits):
            continue
        there.add(sequence)
        split = spans.split_of(source, "auto") if splits is None else splits[sequence]
        file = stock.file_of(stock.take(source))
        entries.append(manifest.Entry(stock.file_of(name), file, split, labels=[genre]))
    missing = [
        report.Missing(sequence, split, sequence.replace("cAll", "c01") + ".mp4")
        for sequence, split in (splits or {}).items()
        if sequence not in there
    ]
    return report.Found(entries, missing)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = report.parser("aist", __doc__)
    report.add_folder(parser)
    parser.add_argument("--splits", type=pathlib.Path, help="folder of AIST++'s official lists")
    args = parser.parse_args(argv)
    report.run(args, lambda stock: search(stock, args.splits and read_splits(args.splits)))


if __name__ == "__main__":
    main()
