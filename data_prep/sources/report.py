"""The command line that all sources share: where to look, what to write, what was not there."""

import argparse
from collections import Counter
from collections.abc import Callable, Iterable
import dataclasses
import json
import pathlib
import sys

from data_prep import manifest
from data_prep.sources import on_disk
from foley_jax.media import file_arguments


@dataclasses.dataclass(frozen=True)
class Missing:
    """One clip that the official files name and the folder does not give.

    Attributes:
      id: of the clip.
      split: where it would go.
      wanted: the usual name of its file.
      reason: "no_file", or one word for why the file there does not do, e.g. "too_short".
      detail: more, in words.
    """

    id: str
    split: str
    wanted: str
    reason: str = "no_file"
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Found:
    """Catalogue of a source: clips, and what is missing."""

    entries: list[manifest.Entry]
    missing: list[Missing]


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser for one source: add its official files, then `add_folder`."""
    return file_arguments.Parser(
        prog=f"python -m data_prep.sources.{name}",
        description=description,
    )


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that every source has."""
    parser.add_argument("videos", type=pathlib.Path, help="folder of videos, with subfolders")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("manifest.jsonl"),
        help="the manifest (manifest.jsonl); what is missing goes to NAME.missing.jsonl beside it",
    )
    parser.add_argument(
        "--root",
        type=pathlib.Path,
        help="folder above VIDEOS that paths start from, to join the manifests of several folders",
    )


def run(args: argparse.Namespace, search: Callable[[on_disk.Stock], Found]) -> None:
    """Searches the folder, writes both lists and says how many of each there are.

    Args:
      args: with the arguments of `add_folder`.
      search: from the videos to what was found.
    Raises:
      SystemExit: with a message, if a file is not as it must be or not one clip was found.
    """
    try:
        stock = on_disk.Stock(args.videos, args.root)
        found = search(stock)
        missing_path = write_missing(args.out, found.missing)
        if found.entries:
            manifest.write(args.out, found.entries)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    absent = f"{len(found.missing)} missing (see {missing_path})"
    strangers = stock.strangers
    if not found.entries:
        first = f"; the first wants {found.missing[0].wanted}" if found.missing else ""
        there = f", but for example {strangers[0]}" if strangers else ""
        sys.exit(
            f"error: none of the clips is in {args.videos}, which has {len(stock)} videos{there}"
            f"{first}; no manifest was written, {absent}"
        )
    counts = Counter(entry.split for entry in found.entries)
    numbers = ", ".join(f"{counts[split]} {split}" for split in sorted(counts))
    print(f"{numbers} clips in {args.out}; {absent if found.missing else 'none missing'}")
    if strangers:
        print(f"{len(strangers)} videos belong to no clip, for example {strangers[0]}")


def write_missing(out: pathlib.Path, missing: Iterable[Missing]) -> pathlib.Path:
    """Writes NAME.missing.jsonl beside NAME.jsonl, empty if nothing is missing."""
    path = out.with_name(f"{out.stem}.missing.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(dataclasses.asdict(one)) + "\n" for one in missing]
    path.write_text("".join(lines))
    return path
