"""Blind listening tests: real or generated, which of two, how good, how well in sync.

    python -m foley_jax.evaluation.listening make --real=videos/test --system=ours=out/ours \\
        --system=theirs=out/theirs --per_listener=40 --out=test
    python -m foley_jax.evaluation.listening serve test --answers=answers.jsonl
    python -m foley_jax.evaluation.listening score answers.jsonl --key=test.key.json --out=report

`make` pairs the files of all systems by name and writes a page that opens from a disk, any web
server or `serve`. Clips have random names and no tags; those of an item are mono, equally long and
equally loud (ITU-R BS.1770), and video is encoded anew. What gives systems away all the same:
bandwidth (--rate makes it one), and compression that a file has been through. The key is written
apart from the page, and is what `score` needs: keep it.

A listener gives an id and gets one of 60 orders of questions by it, or by ?seat=K in the address.
Systems are balanced within each order, items and sides over all of them. Attention checks ask how
many beeps are heard. Answers are kept in the browser, downloaded as JSON lines at the end, and sent
as they are given where `serve` runs.
"""

import argparse
from collections.abc import Sequence
import dataclasses
from pathlib import Path
import sys

from foley_jax.evaluation import run_card, seeds
from foley_jax.evaluation.listening import (
    answer_key,
    answers,
    listening_report,
    making,
    questions,
    scoring,
    server,
    stimuli,
)
from foley_jax.media import file_arguments, names
from foley_jax.runtime import reasons

REAL = "real"  # name of the system of recordings
HOST, PORT = "127.0.0.1", 8000


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all three commands."""
    p = file_arguments.Parser(prog="python -m foley_jax.evaluation.listening", description=__doc__)
    commands = p.add_subparsers(dest="command", required=True, metavar="make|serve|score")
    _add_make(commands.add_parser("make", description="Writes the page of a test, and its key."))
    _add_serve(commands.add_parser("serve", description="Serves a test and takes its answers."))
    _add_score(commands.add_parser("score", description="Turns answers into figures."))
    return p


def _add_make(p: argparse.ArgumentParser) -> None:
    usual = stimuli.Settings()
    p.add_argument("--system", action="append", default=[], metavar="NAME=DIR", help="its clips")
    p.add_argument("--real", type=Path, metavar="DIR", help="recordings: a system named real")
    p.add_argument("--videos", type=Path, metavar="DIR", help="videos shown with every system")
    p.add_argument(
        "--ask",
        default=None,
        metavar="KINDS",
        help=f"of {','.join(questions.KINDS)}; default all that the folders allow",
    )
    p.add_argument("--per_listener", type=int, metavar="N", help="questions; default all")
    p.add_argument("--checks", type=int, default=3, help="attention checks per listener, 0 to 5")
    p.add_argument("--orders", type=int, default=questions.DEFAULT_SEATS, help="even; default 60")
    p.add_argument("--seed", type=int, default=0, help="of the orders")
    p.add_argument("--title", default="Listening test", help="listeners see it")
    p.add_argument("--rate", type=int, default=usual.rate_hz, metavar="HZ", help="of all clips")
    p.add_argument("--lufs", type=float, default=usual.lufs, help="of all clips; default -23")
    p.add_argument("--seconds", type=float, help="most of a clip; default its item's shortest")
    p.add_argument("--height", type=int, default=usual.height, help="most of a video; default 360")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="of the page; new")
    p.add_argument("--key", type=Path, help="file of the key; default OUT.key.json, beside it")


def _add_serve(p: argparse.ArgumentParser) -> None:
    p.add_argument("folder", type=Path, metavar="DIR", help="that `make` wrote")
    p.add_argument("--answers", type=Path, required=True, help="file that they are appended to")
    p.add_argument("--host", default=HOST, help=f"default {HOST}: this machine alone")
    p.add_argument("--port", type=int, default=PORT, help=f"default {PORT}; 0 is any free one")


def _add_score(p: argparse.ArgumentParser) -> None:
    p.add_argument("answers", type=Path, nargs="+", metavar="FILE", help="answers, JSON lines")
    p.add_argument("--key", type=Path, required=True, help="that `make` wrote")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="of the report")
    p.add_argument("--over", choices=("listeners", "items"), default="listeners")
    p.add_argument("--allowed_failures", type=int, default=0, metavar="N", help="of checks")


def make(args: argparse.Namespace) -> None:
    """Writes a test."""
    systems = seeds.parse(args.system)
    seeds.refuse(systems, (REAL,))
    if several := [name for name, folders in systems.items() if len(folders) > 1]:
        raise ValueError(f"{several[0]} has several folders, expected one for each --system")
    folders = {name: paths[0] for name, paths in systems.items()}
    if args.real is not None:
        folders[REAL] = args.real
    wanted = making.Wanted(
        systems=folders,
        real=REAL if args.real is not None else None,
        videos=args.videos,
        kinds=(),
        per_listener=args.per_listener,
        checks=args.checks,
        num_seats=args.orders,
        seed=args.seed,
        title=args.title,
        clips=stimuli.Settings(args.rate, args.lufs, args.seconds, args.height),
    )
    kinds = making.possible_kinds(wanted) if args.ask is None else tuple(args.ask.split(","))
    key = args.key or args.out.with_name(f"{args.out.name}.key.json")
    made = making.make(args.out, key, dataclasses.replace(wanted, kinds=kinds))
    for line in made.remarks:
        print(line, file=sys.stderr)
    clips = {name for q in made.plan.questions for name in q.clips}
    print(
        f"{len(made.plan.questions)} questions on {len(clips)} clips, "
        f"{len(made.plan.seats[0])} for each listener ({', '.join(kinds)})\n"
        f"page: {args.out / 'index.html'}\nkey (not for listeners): {key}"
    )


def serve(args: argparse.Namespace) -> None:
    """Serves a test until interrupted."""
    if args.answers.resolve().is_relative_to(args.folder.resolve()):
        raise ValueError(f"{args.answers} lies in the page's folder, expected a place outside it")
    with server.make(args.folder, args.answers, args.host, args.port) as running:
        host, port = running.server_address[:2]
        print(f"http://{host}:{port}/  (ends with Ctrl-C; answers: {args.answers})", flush=True)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print("ended")


def score(args: argparse.Namespace) -> None:
    """Scores answers and writes the report."""
    key = answer_key.load(args.key)
    given, complaints = answers.read(args.answers, key.test)
    scores = scoring.score(key, given, allowed_failures=args.allowed_failures, over=args.over)
    settings = {
        "over": args.over,
        "allowed_failures": args.allowed_failures,
        "answers_sha256": {path.name: run_card.content_hash(path) for path in args.answers},
        "key_sha256": run_card.content_hash(args.key),
    }
    print(listening_report.write(args.out, key, scores, complaints, settings))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = parser().parse_args(argv)
    act = {"make": make, "serve": serve, "score": score}[args.command]
    try:
        act(args)
    except (OSError, ValueError) as error:
        print(names.shown(f"error: {reasons.of(error)}"), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
