"""Evaluates folders of audio clips or sounding videos, or a model, under named protocols.

    python -m foley_jax.evaluation --protocol=onsets --reference videos/ \\
        --generated=ours=out/seed0_sample0 --generated=ours=out/seed0_sample1 \\
        --generated=theirs=/their/wavs --out=report
    python -m foley_jax.evaluation --protocol=embedded --reference demo/videos/test \\
        --train=demo/videos/train --model=demo/runs/ldm --samples=3 --out=report
    python -m foley_jax.evaluation --protocol=specvqgan-melception,audioldm-eval,align-acc \\
        --weights=weights/ --classifier=weights/eval_classifier.ckpt \\
        --cavp=weights/cavp_epoch66.ckpt --reference vggsound/test --generated=out/ --out=report

A folder may hold .wav, .flac or .mp4 files of any system, in subfolders too; an item is judged
against the reference of the same path without suffix, or, where one side lies flat, of the same
stem (mm-diffusion compares whole sets). A repeated name is another seed of that system, or another
of its samples where the protocol pools them. With --model the audio clips are generated first,
--samples for every video of the reference, into OUT/generated.

protocols
  onsets                onset F1, AP, count accuracy against the true audio; needs no weights
  av-align              peaks of motion against onsets; needs no weights
  embedded              the same against true events of embedded scenes; --train for materials
  align-acc             Diff-Foley's evaluation classifier; --classifier, --cavp
  yamnet                KL, cosine, FAD, IS by YAMNet's AudioSet classes; --weights
  specvqgan-melception  FID, IS, MKL, KID of the Diff-Foley paper; --weights
  audioldm-eval[-32k]   FD, FAD, KL, IS of AudioLDM; --weights
  av-benchmark          FD-VGG, FD-PANN, KL-PANNS-softmax, ... ; --weights, or that tool's caches;
                        --captions for CLAP
  desync                seconds that audio is late or early, by Synchformer; --weights
  mm-diffusion          FVD, KVD, FAD x 10^4; --weights, --split

Written into --out (with several protocols, into a folder for each): metrics.json, table.md,
table.tex, per_sample.csv, run_card.json, index.html. A metric whose weights are missing is skipped
by name. Features are kept in --cache by content: a stopped evaluation goes on where it was.

A figure that cannot be computed is a dash (null in metrics.json, empty in per_sample.csv), and the
reason stands below the table: wrong pairs need 2 clips, a distance between sets 2 of each, a 95 %
interval 4, IS 10. A dagger marks a figure of which something is to be known: that it does not tell
pairs apart here (wrong pairs are as good as its interval), or that a distance is of fewer items
than dimensions. A file that cannot be read stops no other, nor does a system without any, nor a
protocol that cannot be made.

exit code
  0  every protocol gave its table, with figures or reasons, and every system has a row in it
  1  a protocol failed, or nothing of a system could be judged; the others are written.
     So also of arguments that cannot be (an unknown protocol, no such folder): nothing is written
"""

import argparse
from collections.abc import Iterator, Sequence
import contextlib
from pathlib import Path
import sys
import traceback

import numpy as np

from foley_jax.diff_foley.sampling import features, pipeline
from foley_jax.evaluation import feature_store, report, run_card, seeds
from foley_jax.evaluation.networks import weights_folder
from foley_jax.evaluation.protocols import (
    align_acc_protocol,
    by_name,
    feature_rules,
    protocol,
)
from foley_jax.inference import load, load_foley, many, timing
from foley_jax.interop import registry
from foley_jax.media import file_arguments, files
from foley_jax.media import names as name_lib
from foley_jax.runtime import compile_cache, limits, reasons


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = file_arguments.Parser(
        prog="python -m foley_jax.evaluation",
        description=__doc__,
        epilog=compile_cache.HELP,
    )
    p.add_argument("--protocol", required=True, help="one, or several with commas between")
    p.add_argument(
        "--reference",
        type=Path,
        nargs="+",
        required=True,
        help="folders of true audio clips or videos",
    )
    p.add_argument("--out", type=Path, required=True, help="where the report goes")
    systems = p.add_argument_group("what is judged")
    systems.add_argument(
        "--generated",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="a system's audio clips",
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
    means.add_argument(
        "--weights", type=Path, help="folder of published files, beside the usual one"
    )
    means.add_argument("--preset", choices=("default", "official"), default="default")
    means.add_argument("--cache", type=Path, help="where features are kept (default OUT/cache)")
    means.add_argument("--classifier", help="align-acc: evaluation classifier, run or file")
    means.add_argument("--cavp", help="CAVP of --model and of the classifier")
    means.add_argument("--train", type=Path, help="embedded: training scenes, for materials")
    means.add_argument(
        "--seconds", type=limits.number_argument, help="of every audio clip that count"
    )
    means.add_argument(
        "--captions", type=Path, help="av-benchmark: CSV file, columns name and caption"
    )
    means.add_argument("--split", help="mm-diffusion: part of the data the reference is, in words")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = parser().parse_args(argv)
    compile_cache.turn_on()
    try:
        names = by_name.parse(args.protocol)
        systems, models, checkpoints = _systems(args)
        _tell_passed_over(args, systems)
    except (OSError, ValueError) as error:
        print(f"error: {reasons.of(error)}", file=sys.stderr)
        return 1
    means = _means(args)
    outs = {name: args.out / name if len(names) > 1 else args.out for name in names}
    failed: dict[str, str] = {}
    rules = {}
    for name in names:
        with _kept_apart(name, outs[name], failed):
            rules[name] = by_name.make(name, means)
    for name, path in models.items() if rules else ():
        with _kept_apart(name, None, failed):
            systems[name] = _generate(name, path, args)
    for name, rule in rules.items():
        result = None
        with _kept_apart(name, outs[name], failed):
            result = protocol.evaluate(
                rule, systems, args.reference, checkpoints, leave_out=[args.out]
            )
        if result is not None:
            for system, why in result.failed.items():
                _enter(failed, f"{name}, {system}", why)
            with _kept_apart(name, None, failed):  # what is written by then stays
                print(name_lib.shown(report.write(outs[name], rule, result)))
    if failed and len(names) > 1:
        print(f"error: failed of all that was asked for: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _tell_passed_over(args: argparse.Namespace, systems: dict[str, list[Path]]) -> None:
    """Says once what the search of all folders leaves out.

    Raises:
      FileNotFoundError: a folder without audio clips.
      ValueError: the report would go into a folder that is searched.
    """
    searched = [*args.reference, *(folder for runs in systems.values() for folder in runs)]
    if remark := run_card.passed_over(searched, [args.out]):
        print(remark, file=sys.stderr)


def _enter(failed: dict[str, str], what: str, why: str) -> None:
    """Notes a failure, and tells it when it happens: what follows may take hours."""
    failed[what] = why
    print(name_lib.shown(f"error: {what}: {why}"), file=sys.stderr)


@contextlib.contextmanager
def _kept_apart(name: str, out: Path | None, failed: dict[str, str]) -> Iterator[None]:
    """Work whose failure stops no other: it is entered, and reported into `out`."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, (OSError, ValueError)):
            traceback.print_exc()  # not of the input, perhaps; whoever mends it needs the place
        _enter(failed, name, reasons.of(error))
        if out is not None:
            with contextlib.suppress(OSError):  # told below anyway
                report.write_failure(out, name, failed[name])


def _systems(
    args: argparse.Namespace,
) -> tuple[dict[str, list[Path]], dict[str, Path], dict[str, Path]]:
    """Folders of the systems, models to generate with, and checkpoints to hash, by name.

    Raises:
      FileNotFoundError: a folder or a checkpoint that is not there.
      ValueError: names that collide, or belong to no system.
    """
    systems = seeds.parse(args.generated, "generated")
    checkpoints = _last(seeds.parse(args.checkpoint, "generated"))
    models = _last(seeds.parse(args.model, "model"))
    if taken := sorted(set(models) & set(systems)):
        raise ValueError(f"--model and --generated both name {taken}")
    if strangers := sorted(set(checkpoints) - set(systems) - set(models)):
        raise ValueError(f"--checkpoint names {strangers}, --generated {sorted(systems)}")
    seeds.refuse([*systems, *models], protocol.RESERVED)
    for folder in (*args.reference, *(folder for runs in systems.values() for folder in runs)):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} holds no audio clips: there is no such folder")
    for path in checkpoints.values():
        if not path.exists():
            raise FileNotFoundError(f"--checkpoint={path}: there is no such file or folder")
    return systems, models, {**models, **checkpoints}


def _means(args: argparse.Namespace) -> by_name.Means:
    store = feature_store.FeatureStore(args.cache or args.out / "cache")
    usual = weights_folder.usual()
    folder = args.weights or (usual if usual.is_dir() else None)
    networks = folder and feature_rules.Networks(
        folder, registry.load_torch, store, preset=args.preset
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
        captions=args.captions,
    )


def judge(classifier: str, cavp: str) -> align_acc_protocol.Judge:
    """The networks of Align Acc from run folders or official files."""
    loaded = load_foley.alignment_judge(classifier, cavp)
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
        loaded.num_features,
    )


def _generate(name: str, model: Path, args: argparse.Namespace) -> list[Path]:
    """A folder of audio clips per sample, made for all videos of the reference."""
    settings = pipeline.Settings(seed=args.seed, steps=args.steps, guidance=args.guidance)
    out = args.out / "generated" / name
    loaded = load.any_system(model, cavp=args.cavp, classifier=args.guide)
    # every name of the reference is asked for, also of links to one file
    videos = files.find(
        args.reference, files.VIDEO_SUFFIXES, leave_out=[args.out], same_once=False
    ).paths
    made = many.run(
        loaded,
        videos or args.reference,
        out,
        args.samples,
        settings=settings,
        networks={
            **dict.fromkeys(load.NETWORKS),
            "model": str(model),
            "cavp": args.cavp,
            "classifier": args.guide,
        },
    )
    for path, reason in made.failures.items():
        print(name_lib.shown(f"failed: {path}: {reason}"), file=sys.stderr)
    if made.speed is not None:
        print(timing.table(made.speed))
    return made.folders


def _last(items: dict[str, list[Path]]) -> dict[str, Path]:
    return {name: paths[-1] for name, paths in items.items()}


if __name__ == "__main__":
    raise SystemExit(main())
