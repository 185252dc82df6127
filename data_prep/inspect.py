"""Shows what a set of shards holds, and whether all of it can be read.

    python -m data_prep.inspect SHARDS                        # counts, labels, rates, sizes
    python -m data_prep.inspect SHARDS --quick                # from the index alone
    python -m data_prep.inspect SHARDS --verify               # decode everything, compare checksums
    python -m data_prep.inspect SHARDS --sheet=sheet.png      # some clips with their audio
    python -m data_prep.inspect SHARDS --repair=GOOD          # a copy without the bad records
    python -m data_prep.inspect SHARDS --speed                # how fast training can read it

It reads prepared sets and feature sets. With anything wrong it ends with status 1 and says where.
--verify also prints the SHA-256 of the content: equal for equal clips, however they are divided
among shards. --repair never changes SHARDS: it writes the good records into a new folder, and a
line for each lost one into GOOD/dropped.jsonl.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
import json
import os
import pathlib
import sys

import numpy as np
import tqdm

from data_prep import loader_speed, shard_check
from foley_jax.data import pipeline, records
from foley_jax.media import file_arguments, plots

SHOWN_FAULTS = 20
SHOWN_LABELS = 12


def summary(folder: pathlib.Path, index: records.Index) -> list[str]:
    """Lines about a set, from its index alone."""
    size = sum(shard.bytes for shard in index.shards)
    count = sum(shard.num_records for shard in index.shards)
    what = f"{index.height}x{index.width} at {index.fps:g} frames/s ({index.fit}"
    what += ")" if index.antialias else ", not antialiased)"
    if index.cavp_dim:
        what = f"features of {index.cavp_dim} numbers, {index.fps:g} a second, from {what}"
    lines = [
        f"{folder}: {count} clips in {len(index.shards)} shards, {size / 1e6:.1f} MB "
        f"({size / max(count, 1) / 1e3:.0f} kB a clip), schema version {records.SCHEMA_VERSION}",
        f"  {what}; audio at {index.sample_rate_hz} Hz",
    ]
    for split in index.splits:
        mine = [shard for shard in index.shards if shard.split == split]
        counts = [shard.num_records for shard in mine]
        size = sum(shard.bytes for shard in mine)
        lines.append(
            f"  {split}: {sum(counts)} clips in {len(mine)} shards of {min(counts)} to "
            f"{max(counts)}, {size / 1e6:.1f} MB"
        )
    if index.num_failures:
        lines.append(f"  {index.num_failures} clips could not be made (see failures.jsonl)")
    notes = folder / "notes.jsonl"
    if notes.is_file():
        told = Counter(json.loads(line)["note"] for line in notes.read_text().splitlines())
        lines += [f"  {count} videos: {note} (see {notes.name})" for note, count in told.items()]
    return lines


def content(seen: shard_check.Findings) -> list[str]:
    """Lines about the clips themselves, split by split."""
    lines = []
    for split in sorted(seen.seconds):
        labels = {label: n for (where, label), n in seen.labels.items() if where == split}
        without = labels.pop("", 0)
        text = ", ".join(f"{name} {n}" for name, n in Counter(labels).most_common(SHOWN_LABELS))
        if len(labels) > SHOWN_LABELS:
            text += f" and {len(labels) - SHOWN_LABELS} more"
        if without:
            text += f"{', ' if text else ''}{without} clips without labels"
        lines.append(
            f"  {split}: {seen.seconds[split] / 3600:.2f} h, {seen.events[split]} true events; "
            f"{len(labels)} labels: {text}"
        )
    return lines


def look(folder: pathlib.Path, *, thorough: bool, workers: int) -> shard_check.Findings:
    """Reads a whole set; see `shard_check.check`."""
    index = records.read_index(folder)
    total = sum(shard.num_records for shard in index.shards)
    seen = shard_check.Findings()
    with tqdm.tqdm(total=total, unit="clip", desc=str(folder)) as bar:
        for shard, findings in shard_check.check(folder, thorough=thorough, workers=workers):
            seen.add(findings, shard.file)
            bar.update(shard.num_records)
    return seen


def save_sheet(path: pathlib.Path, folder: pathlib.Path, num_clips: int) -> None:
    """Draws clips chosen evenly from all splits into a PNG, with their true events.

    Raises:
      ValueError: the set holds features instead of images.
    """
    index = records.read_index(folder)
    if index.cavp_dim:
        raise ValueError(f"{folder} holds features, no images; draw the set it was made from")
    whole = sum(shard.num_records for shard in index.shards)
    rows = []
    for split in index.splits:
        source = pipeline.open_source(folder, split, max_damaged=whole)
        share = max(1, round(num_clips * len(source) / whole))
        for i in np.unique(np.linspace(0, len(source) - 1, share).round().astype(int)):
            clip = source[int(i)]
            title = f"{clip.id} [{clip.split}] {', '.join(clip.labels)}"
            times = [event["time_s"] for event in clip.events or []]
            rows.append(
                plots.SheetRow(
                    clip.frames_THWC(),
                    clip.audio,
                    clip.sample_rate_hz,
                    clip.fps,
                    f"{title} {clip.start_s:g}-{clip.end_s:g} s of {clip.source}",
                    {"true events": times} if times else {},
                )
            )
    plots.save_contact_sheet(path, rows)


def _report(seen: shard_check.Findings, *, thorough: bool) -> None:
    for fault in seen.faults[:SHOWN_FAULTS]:
        where = fault.shard if fault.record is None else f"{fault.shard} record {fault.record}"
        print(f"  {fault.reason}: {where}: {fault.detail}")
    if len(seen.faults) > SHOWN_FAULTS:
        print(f"  and {len(seen.faults) - SHOWN_FAULTS} more faults")
    if thorough:
        print(f"  content SHA-256 {seen.content_sha256}")
    what = "whole" if thorough else "readable (--verify also decodes the images)"
    print(f"  {seen.num_good} of {seen.num_records} records are {what}")


def _parser() -> argparse.ArgumentParser:
    parser = file_arguments.Parser(
        prog="python -m data_prep.inspect",
        description=__doc__,
    )
    parser.add_argument("shards", type=pathlib.Path, help="prepared set or feature set")
    parser.add_argument("--quick", action="store_true", help="read the index alone")
    parser.add_argument("--verify", action="store_true", help="decode everything, check sums")
    parser.add_argument("--repair", type=pathlib.Path, help="new folder for the good records")
    parser.add_argument("--sheet", type=pathlib.Path, help="PNG to draw clips into")
    parser.add_argument("--sheet_clips", type=int, default=8, help="how many, about (8)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    loader_speed.add_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = _parser()
    args = parser.parse_args(argv)
    if min(args.workers, args.sheet_clips) < 1:
        parser.error("--workers and --sheet_clips must be positive")
    if args.quick and (args.verify or args.repair):
        parser.error("--quick reads the index alone; leave it out to verify or repair")
    try:
        healthy = _run(args)
    except ValueError as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if healthy else 1)


def _run(args: argparse.Namespace) -> bool:
    """Returns what the options ask for; whether nothing is wrong."""
    print(*summary(args.shards, records.read_index(args.shards)), sep="\n")
    thorough, healthy = args.verify or args.repair is not None, True
    if args.sheet is not None:
        save_sheet(args.sheet, args.shards, args.sheet_clips)
        print(f"  {args.sheet}: clips with their audio")
    if args.speed:
        print(*loader_speed.measure(args.shards, args), sep="\n")
    if thorough or not (args.quick or args.sheet or args.speed):
        seen = look(args.shards, thorough=thorough, workers=args.workers)
        print(*content(seen), sep="\n")
        _report(seen, thorough=thorough)
        healthy = not seen.faults
        if args.repair is not None:
            index, dropped = shard_check.repair(args.shards, args.repair, seen.faults)
            kept = sum(shard.num_records for shard in index.shards)
            print(
                f"{args.repair}: {kept} records kept, {len(dropped)} dropped "
                f"({args.repair / shard_check.DROPPED_NAME})"
            )
            healthy = True
        elif not healthy:
            print(f"repair: python -m data_prep.inspect {args.shards} --repair=FOLDER")
    return healthy


if __name__ == "__main__":
    main()
