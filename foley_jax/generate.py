"""Many audio clips for every video of a split, as an evaluation wants them.

python -m foley_jax.generate videos/test --model=runs/ldm --samples=10 --out=out
python -m foley_jax.generate videos/test --model=official/ --samples=10 --out=out --videos
python -m foley_jax.evaluation --protocol=onsets --reference=videos/test --out=report \\
    --generated=ours=out/seed0_sample0 --generated=ours=out/seed0_sample1

from foley_jax import generate, sample
report = generate.run(sample.load("runs/ldm"), ["videos/test"], "out", samples=10)
"""

import argparse
from collections.abc import Sequence
import sys

import jax

from foley_jax.diff_foley.sampling import pipeline
from foley_jax.inference import flags, load, many, timing
from foley_jax.media import file_arguments, names
from foley_jax.runtime import compile_cache, distributed, limits, reasons

run, Report = many.run, many.Report  # the Python API


def parser() -> argparse.ArgumentParser:
    p = file_arguments.Parser(
        prog="python -m foley_jax.generate",
        description=__doc__,
        epilog=f"""Sample K of a video NAME is out/seedS_sampleK/NAME.wav with S = --seed: the
audio that `python -m foley_jax.sample --seed=S --num_samples=N` makes as its sample K. A folder is
a run for `python -m foley_jax.evaluation --generated=SYSTEM=FOLDER`. Run it again after a stop,
or with more --samples: what is there is not made again. out/failures.json names the videos that
failed, and why (the exit code is then 1; {reasons.SWITCH}=1 in the environment also shows
where), out/speed.json says how long a clip took. With --distributed the
same command runs in every process; they share the videos, and the file system.

{compile_cache.HELP}""",
    )
    p.add_argument("inputs", nargs="+", help="videos or folders of them")
    p.add_argument(
        "--model",
        required=True,
        help="workdir of an ldm run (runs/ldm), folder of official files, hub:OWNER/NAME, or "
        "embedded",
    )
    p.add_argument("--out", default="out", help="output folder (default: out)")
    count = limits.count_argument
    p.add_argument(
        "--samples", type=count, default=10, help="audio clips for each video (default: 10)"
    )
    p.add_argument("--videos", action="store_true", help="write NAME.mp4 beside NAME.wav")
    p.add_argument("--group", type=count, help="clips made together (default: fill the devices)")
    p.add_argument(
        "--distributed",
        action="store_true",
        help="several processes: joins the others first. Address, number and index come from the "
        "cluster, or from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID",
    )
    flags.of_both(p)
    flags.of_foley(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        settings = flags.settings(pipeline.Settings, args)  # before anything is loaded
        if args.distributed:
            distributed.join_processes()
        compile_cache.turn_on()
        if load.system_of(args.model) != "diff_foley":
            raise ValueError(many.not_for_others(args.model))
        load.check_steps(args.model, settings.steps)
        own = {name: getattr(args, name, None) for name in load.NETWORKS}
        report = run(
            load.any_system(args.model, devices=args.devices, **own),
            args.inputs,
            args.out,
            args.samples,
            settings=settings,
            networks={"model": args.model, **own},
            mux=args.videos,
            group=args.group,
        )
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {reasons.of(error)}", file=sys.stderr)
        return 1
    if jax.process_index() == 0:
        print(f"{args.samples} audio clips for each video, in {report.folders[0]} and so on")
        if report.speed is not None:
            print(timing.table(report.speed))
        for path, reason in report.failures.items():
            print(names.shown(f"failed: {path}: {reason}"), file=sys.stderr)
    return 1 if report.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
