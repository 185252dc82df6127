"""Evaluates folders of sounds under a named protocol: `onsets`, `av-align`.

    python -m foley_jax.evaluation --protocol=onsets --reference=videos/ \\
        --generated=ours=out/seed0 --generated=ours=out/seed1 --generated=theirs/ --out=report/

A folder may hold .wav, .flac or .mp4 files of any system; an item is judged against the reference
of the same stem. A repeated name is another seed of that system. Written into --out: metrics.json,
table.md, table.tex, per_sample.csv, run_card.json.
"""

import argparse
from collections.abc import Sequence
import json
import math
from pathlib import Path
import sys

from foley_jax.evaluation import (
    av_align_protocol,
    onset_protocol,
    protocol,
    report,
    run_card,
    seeds,
    tables,
)

PROTOCOLS: dict[str, protocol.Rules] = {
    rules.name: rules for rules in (onset_protocol.Onsets(), av_align_protocol.AvAlign())
}


def write(out: Path, rules: protocol.Rules, result: protocol.Result) -> None:
    """Writes all files of a report and prints its table."""
    out.mkdir(parents=True, exist_ok=True)
    name = rules.name
    # JSON knows no nan: what could not be computed is null
    systems = {
        system: {key: None if math.isnan(value) else value for key, value in figures.items()}
        for system, figures in result.figures.items()
    }
    metrics = {"protocol": name, "systems": systems, "complaints": result.complaints}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    columns, more = rules.columns, rules.more_columns
    table = report.table_of(f"protocol `{name}`", result.figures, columns, more)
    lines = "".join(f"\n- {line}" for line in result.complaints)
    text = table + ("\n" + lines if lines else "")
    (out / "table.md").write_text(text + "\n")
    keys = {head: key for head, key in columns.items() if key}
    latex = tables.latex_table(name, result.figures, keys)
    (out / "table.tex").write_text(latex + "\n")
    tables.write_per_sample(out / "per_sample.csv", name, result.samples)
    run_card.write(out / "run_card.json", name, rules.settings(), result.systems)
    print(text)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    p = argparse.ArgumentParser(
        prog="python -m foley_jax.evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--protocol", required=True, choices=sorted(PROTOCOLS))
    p.add_argument("--reference", type=Path, required=True, help="folder of true sounds or videos")
    p.add_argument(
        "--generated", action="append", default=[], metavar="[NAME=]DIR", help="a system's sounds"
    )
    p.add_argument(
        "--checkpoint", action="append", default=[], metavar="[NAME=]PATH", help="to be hashed"
    )
    p.add_argument("--out", type=Path, required=True, help="where the report goes")
    args = p.parse_args(argv)
    rules = PROTOCOLS[args.protocol]
    try:
        systems = seeds.parse([_named(item) for item in args.generated])
        checkpoints = seeds.parse([_named(item) for item in args.checkpoint])
        if strangers := sorted(set(checkpoints) - set(systems)):
            raise ValueError(f"--checkpoint names {strangers}, --generated {sorted(systems)}")
        weights = {name: paths[-1] for name, paths in checkpoints.items()}
        result = protocol.evaluate(rules, systems, args.reference, weights)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write(args.out, rules, result)
    return 0


def _named(item: str) -> str:
    return item if "=" in item else f"generated={item}"


if __name__ == "__main__":
    raise SystemExit(main())
