"""Evaluates folders of sounds or sounding videos, or a model, under named protocols.

    python -m foley_jax.evaluation --protocol=onsets --reference videos/ \\
        --generated=ours=out/seed0_sample0 --generated=ours=out/seed0_sample1 \\
        --generated=theirs=/their/wavs --out=report
    python -m foley_jax.evaluation --protocol=embedded --reference demo/videos/test \\
        --train=demo/videos/train --model=demo/runs/ldm --samples=3 --out=report
    python -m foley_jax.evaluation --protocol=specvqgan-melception,audioldm-eval,align-acc \\
        --weights=weights/ --classifier=weights/eval_classifier.ckpt \\
        --cavp=weights/cavp_epoch66.ckpt --reference vggsound/test --generated=out/ --out=report

A folder may hold .wav, .flac or .mp4 files of any system; an item is judged against the reference
of the same stem (mm-diffusion compares whole sets). A repeated name is another seed of that
system, or another of its samples where the protocol pools them. With --model the sounds are
generated first, --samples for every video of the reference, into OUT/generated.

protocols
  onsets                onset F1, AP, count accuracy against the true sound; needs no weights
  av-align              peaks of motion against onsets; needs no weights
  embedded              the same against true events of embedded scenes; --train for materials
  align-acc             Diff-Foley's evaluation classifier; --classifier, --cavp
  specvqgan-melception  FID, IS, MKL, KID of the Diff-Foley paper; --weights
  audioldm-eval[-32k]   FD, FAD, KL, IS of AudioLDM; --weights
  av-benchmark          FD-VGG, FD-PANN, KL-PANNS-softmax, ... ; --weights, or that tool's caches
  mm-diffusion          FVD, KVD, FAD x 10^4; --weights, --split

Written into --out (with several protocols, into a folder for each): metrics.json, table.md,
table.tex, per_sample.csv, run_card.json, index.html. A metric whose weights are missing is skipped
by name. Features are kept in --cache by content: a stopped evaluation goes on where it was.
"""

import argparse
from collections.abc import Sequence
import json
import math
from pathlib import Path
import sys

import numpy as np

from foley_jax import convert, generate, loading, program_cache, sample, speed
from foley_jax.diff_foley import features, pipeline
from foley_jax.evaluation import feature_store, run_card, seeds, tables
from foley_jax.evaluation.pages import page
from foley_jax.evaluation.protocols import align_acc_protocol, by_name, feature_rules, protocol
from foley_jax.runtime import limits, reasons


def write(out: Path, rules: protocol.Rules, result: protocol.Result) -> None:
    """Writes all files of a report and prints its table."""
    out.mkdir(parents=True, exist_ok=True)
    name = rules.name
    # JSON knows no nan: what could not be computed is null
    systems = {
        system: {key: None if math.isnan(value) else value for key, value in figures.items()}
        for system, figures in result.figures.items()
    }
    metrics = {
        "protocol": name,
        "systems": systems,
        "skipped": result.skipped,
        "complaints": result.complaints,
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    columns, more = rules.columns, rules.more_columns
    table = tables.markdown_table(f"protocol `{name}`", result.figures, columns, more)
    remarks = [*result.complaints, *(f"{metric}: {why}" for metric, why in result.skipped.items())]
    text = table + ("\n" + "".join(f"\n- {line}" for line in remarks) if remarks else "")
    (out / "table.md").write_text(text + "\n")
    keys = {head: key for head, key in columns.items() if key}
    latex = tables.latex_table(name, result.figures, keys)
    (out / "table.tex").write_text(latex + "\n")
    tables.write_per_sample(out / "per_sample.csv", name, result.samples)
    settings = {**rules.settings(), "skipped": result.skipped}
    run_card.write(out / "run_card.json", name, settings, result.systems)
    shown = page.write(out, rules, result)
    print(f"{text}\n\nplayers, best and worst: {shown}\n")


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = argparse.ArgumentParser(
        prog="python -m foley_jax.evaluation",
        description=__doc__,
        epilog=program_cache.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--protocol", required=True, help="one, or several with commas between")
    p.add_argument(
        "--reference", type=Path, nargs="+", required=True, help="folders of true sounds or videos"
    )
    p.add_argument("--out", type=Path, required=True, help="where the report goes")
    systems = p.add_argument_group("what is judged")
    systems.add_argument(
        "--generated", action="append", default=[], metavar="[NAME=]DIR", help="a system's sounds"
    )
    systems.add_argument(
        "--checkpoint", action="append", default=[], metavar="[NAME=]PATH", help="to be hashed"
    )
    systems.add_argument(
        "--model", action="append", default=[], metavar="[NAME=]PATH", help="generate with it first"
    )
    systems.add_argument(
        "--samples", type=limits.count_argument, default=3, help="of --model, for every video"
    )
    systems.add_argument("--seed", type=limits.seed_argument, default=0, help="of --model")
    systems.add_argument("--steps", type=int, default=25, help="solver steps")
    systems.add_argument(
        "--guidance", type=limits.number_argument, default=4.5, help="classifier-free guidance"
    )
    systems.add_argument("--guide", help="alignment classifier that guides --model, run or file")
    means = p.add_argument_group("what protocols need")
    means.add_argument("--weights", type=Path, help="folder of the networks' published files")
    means.add_argument("--preset", choices=("default", "official"), default="default")
    means.add_argument("--cache", type=Path, help="where features are kept (default OUT/cache)")
    means.add_argument("--classifier", help="align-acc: evaluation classifier, run or file")
    means.add_argument("--cavp", help="CAVP of --model and of the classifier")
    means.add_argument("--train", type=Path, help="embedded: training scenes, for materials")
    means.add_argument("--seconds", type=limits.number_argument, help="of every sound that count")
    means.add_argument("--split", help="mm-diffusion: part of the data the reference is, in words")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = parser().parse_args(argv)
    names = args.protocol.split(",")
    program_cache.turn_on()
    try:
        means = _means(args)
        rules = [by_name.make(name, means) for name in names]
        systems = seeds.parse([_named(item, "generated") for item in args.generated])
        checkpoints = _last(seeds.parse([_named(item, "generated") for item in args.checkpoint]))
        models = _last(seeds.parse([_named(item, "model") for item in args.model]))
        if taken := sorted(set(models) & set(systems)):
            raise ValueError(f"--model and --generated both name {taken}")
        if strangers := sorted(set(checkpoints) - set(systems) - set(models)):
            raise ValueError(f"--checkpoint names {strangers}, --generated {sorted(systems)}")
        for name, path in models.items():
            systems[name] = _generate(name, path, args)
            checkpoints.setdefault(name, path)
    except (OSError, ValueError) as error:
        print(f"error: {reasons.of(error)}", file=sys.stderr)
        return 1
    failed = 0
    for rule in rules:
        try:
            result = protocol.evaluate(rule, systems, args.reference, checkpoints)
        except (FileNotFoundError, ValueError) as error:  # the other protocols go on
            print(f"error: protocol {rule.name}: {error}", file=sys.stderr)
            failed = 1
            continue
        write(args.out / rule.name if len(rules) > 1 else args.out, rule, result)
    return failed


def _means(args: argparse.Namespace) -> by_name.Means:
    store = feature_store.FeatureStore(args.cache or args.out / "cache")
    networks = args.weights and feature_rules.Networks(
        args.weights, convert.load_torch, store, preset=args.preset
    )
    both = args.classifier and args.cavp
    return by_name.Means(
        networks,
        store,
        judge=(lambda: judge(args.classifier, args.cavp)) if both else None,
        train=args.train,
        seconds=args.seconds,
        split=args.split,
        cache=args.cache,
        preset=args.preset,
    )


def judge(classifier: str, cavp: str) -> align_acc_protocol.Judge:
    """The networks of Align Acc from run folders or official files."""
    loaded = loading.alignment_judge(classifier, cavp)
    encode = loaded.cavp.jit(features.encode_frames)
    return align_acc_protocol.Judge(
        loaded.classifier.module(),
        lambda frames_BTHWC: np.asarray(features.extract_batch(encode, frames_BTHWC)),
        loaded.audio,
        loaded.video,
        {
            name: run_card.content_hash(Path(p))
            for name, p in (("classifier", classifier), ("cavp", cavp))
        },
        loaded.window_frames,
        loaded.num_rows,
    )


def _generate(name: str, model: Path, args: argparse.Namespace) -> list[Path]:
    """A folder of sounds per sample, made for all videos of the reference."""
    settings = pipeline.Settings(seed=args.seed, steps=args.steps, guidance=args.guidance)
    out = args.out / "generated" / name
    loaded = sample.load(model, cavp=args.cavp, classifier=args.guide)
    made = generate.run(
        loaded,
        args.reference,
        out,
        args.samples,
        settings=settings,
        networks={
            **dict.fromkeys(sample.NETWORKS),
            "model": str(model),
            "cavp": args.cavp,
            "classifier": args.guide,
        },
    )
    for path, reason in made.failures.items():
        print(f"failed: {path}: {reason}", file=sys.stderr)
    if made.speed is not None:
        print(speed.table(made.speed))
    return made.folders


def _last(items: dict[str, list[Path]]) -> dict[str, Path]:
    return {name: paths[-1] for name, paths in items.items()}


def _named(item: str, name: str) -> str:
    return item if "=" in item else f"{name}={item}"


if __name__ == "__main__":
    raise SystemExit(main())
