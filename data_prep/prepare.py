"""Turns a folder of videos into shards that training reads.

    python -m data_prep.prepare VIDEOS SHARDS              # 224x224 at 4 fps, 16 kHz, 10 s clips
    python -m data_prep.prepare VIDEOS SHARDS --size=64    # the demo's size
    python -m data_prep.prepare VIDEOS SHARDS --fps=10 --size=64 --fit=letterbox    # MM-Diffusion
    python -m data_prep.prepare VIDEOS SHARDS --fps=10 --size=256 --fit=letterbox   # its super-res.
    python -m data_prep.prepare VIDEOS SHARDS --manifest=vggsound.jsonl    # clips of a known set

Videos may lie in subfolders; one named train, test or val gives the split, else a hash of the path
does. Longer videos are cut into consecutive clips. A file NAME.json beside NAME.mp4 may hold
`labels` and true `events`. --manifest names clips instead: see `data_prep.manifest`. A broken video
never stops the work: SHARDS/failures.jsonl says which and why. SHARDS/notes.jsonl names the videos
whose images are HDR and were toned down. Kill and start again at will: finished shards are kept.
SHARDS/index.json appears when all is done.

A clip's shard and its place there depend on its id, --seed and the number of shards, not on the
number of workers, interruptions or other clips' fate. `python -m data_prep.beam` does the same on a
cluster and writes the same shards. VIDEOS and SHARDS may be addresses in a store (gs://bucket/set
with the package gcsfs, s3:// with s3fs): each clip's file is then fetched before it is read.

Images of another shape are stretched, as Diff-Foley has them, or keep their shape between black
bars (--fit=letterbox), as MM-Diffusion has them. Its official code smooths what it makes smaller
with torchvision 0.17 and later, and did not with the versions of its time, nor does it for its
super-resolution: add --no-antialias to continue the released weights. The index says what was
done, and the config of a training must say the same (config.video.fit, config.video.antialias).
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
from typing import Protocol, get_args

from etils import epath
import tqdm

from data_prep import clip_making, guarded_pool, shard_jobs, shard_plan, spans, storage
from foley_jax.data import records
from foley_jax.media import file_arguments, specs
from foley_jax.runtime import limits, reasons

FAILURES_NAME = "failures.jsonl"
NOTES_NAME = "notes.jsonl"
TASK_LIMIT_S = 120.0

Job = shard_plan.ProbeJob | shard_plan.ShardJob


class Runner(Protocol):
    """Does jobs, somewhere."""

    def __call__(
        self, jobs: list[Job], run: guarded_pool.Run, *, task_limit_s: float, title: str, kept: int
    ) -> None:
        """Returns when every job is done.

        Args:
          jobs: what is to do.
          run: does one job, see `guarded_pool.Run`.
          task_limit_s: a task that takes longer is given up.
          title: says what is being done.
          kept: tasks that an earlier run did.
        Raises:
          Exception: a job failed outside its tasks.
        """


def prepare(
    videos: str | os.PathLike[str],
    shards: str | os.PathLike[str],
    format: clip_making.Format,
    *,
    split: str = "auto",
    workers: int = 1,
    clips_per_shard: int = 64,
    num_shards: int | None = None,
    seed: int = 0,
    manifest: epath.PathLike | None = None,
    task_limit_s: float = TASK_LIMIT_S,
    runner: Runner | None = None,
) -> records.Index:
    """Prepares a whole folder; see the top of this file.

    Args:
      videos: folder of videos, or address of one in a store.
      shards: folder to write, or address of one.
      format: rate, size and length of the clips.
      split: "auto" or one name for everything.
      workers: parallel processes.
      clips_per_shard: a shard holds about so many clips.
      num_shards: shards of each split, instead of `clips_per_shard`.
      seed: of the order of the clips.
      manifest: makes the clips of this list, instead of all that the folder has.
      task_limit_s: a clip that takes longer to fetch and decode is given up.
      runner: does the work, instead of `workers` processes of this machine.
    Returns:
      The index that was written.
    Raises:
      ValueError: no videos, not one usable clip, or `shards` was begun with other settings.
    """
    videos, shards = storage.Storage(videos), storage.Storage(shards)
    runner = runner or functools.partial(run_here, workers=workers)
    settings = {
        **dataclasses.asdict(format),
        "split": split,
        "clips_per_shard": clips_per_shard,
        "num_shards": num_shards,
        "seed": limits.seed(seed),
        "manifest": None,
        "task_limit_s": limits.real("task_limit_s", task_limit_s, above=0),
    }
    segments = None
    if manifest is not None:
        segments, settings["manifest"] = shard_plan.read_manifest(manifest, split)
    plan = shard_plan.read_plan(shards, settings)
    if plan is None:
        plan = _make_plan(videos, shards, segments, settings, format, runner)
    elif segments is None:
        _tell_of_new_files(videos, shards)
    _write_missing(plan.jobs, videos, shards, format, runner, task_limit_s)
    return _finish(shards, format, plan)


def run_here(
    jobs: list[Job],
    run: guarded_pool.Run,
    *,
    task_limit_s: float,
    title: str,
    kept: int,
    workers: int,
) -> None:
    """The runner of one machine: so many processes and a bar."""
    begun: set[tuple[str, int]] = set()
    total = kept + sum(job.lines.count for job in jobs)
    with tqdm.tqdm(total=total, initial=kept, desc=title) as bar:

        def on_task(job: Job, task: int) -> None:
            if task < job.lines.count and (key := (job.done_name, task)) not in begun:
                begun.add(key)
                bar.update()

        for _ in guarded_pool.run_jobs(
            jobs, run, workers=workers, task_limit_s=task_limit_s, on_task=on_task
        ):
            pass


def _make_plan(
    videos: storage.Storage,
    shards: storage.Storage,
    segments: list[shard_plan.Segment] | None,
    settings: dict,
    format: clip_making.Format,
    runner: Runner,
) -> shard_plan.Plan:
    """Looks at every file once and fixes which clip goes into which shard."""
    known: list[shard_plan.Segment] = []
    if segments is not None:
        known = [one for one in segments if one.is_one_clip(format.clip_seconds)]
        segments = [one for one in segments if not one.is_one_clip(format.clip_seconds)]
    jobs = shard_plan.read_listing(shards, settings)
    if jobs is None:
        if segments is None:
            segments = shard_plan.list_folder(videos, settings["split"], leave_out=shards)
        shards.make()
        jobs = shard_plan.write_listing(shards, segments, settings)
    there = shards.sizes()
    missing = [job for job in jobs if job.done_name not in there]
    run = functools.partial(shard_jobs.look_at, videos=videos, shards=shards, format=format)
    _run_missing(jobs, missing, run, runner, settings["task_limit_s"], f"looking into {videos}")
    found, failures = shard_plan.spans_of_clips(known)
    for data in shards.read_many(job.done_name for job in jobs):
        some_found, some_failures = shard_plan.read_probed(data)
        found += some_found
        failures += some_failures
    return shard_plan.write_plan(shards, found, failures, settings)


def _tell_of_new_files(videos: storage.Storage, shards: storage.Storage) -> None:
    there = set(spans.find_videos(videos, leave_out=shards))
    if count := len(there - shard_plan.listed_files(shards)):
        print(
            f"{count} videos came after {shards} was begun and are left out; "
            "prepare them into another folder, or delete this one",
            file=sys.stderr,
        )


def _run_missing(
    jobs: list[Job],
    missing: list[Job],
    run: guarded_pool.Run,
    runner: Runner,
    task_limit_s: float,
    title: str,
) -> None:
    if missing:
        kept = sum(job.lines.count for job in jobs) - sum(job.lines.count for job in missing)
        runner(missing, run, task_limit_s=task_limit_s, title=title, kept=kept)


def _write_missing(
    jobs: list[shard_plan.ShardJob],
    videos: storage.Storage,
    shards: storage.Storage,
    format: clip_making.Format,
    runner: Runner,
    task_limit_s: float,
) -> None:
    sizes, done = shards.sizes(), _read_done(jobs, shards)
    missing = [
        job
        for job in jobs
        if job.done_name not in done or not shard_jobs.is_done(sizes, done[job.done_name])
    ]
    run = functools.partial(shard_jobs.write_shard, videos=videos, shards=shards, format=format)
    _run_missing(jobs, missing, run, runner, task_limit_s, str(shards))


def _read_done(jobs: list[shard_plan.ShardJob], shards: storage.Storage) -> dict[str, dict]:
    """Returns what the finished ones left, by their names."""
    there = shards.sizes()
    names = [job.done_name for job in jobs if job.done_name in there]
    return {
        name: json.loads(data) for name, data in zip(names, shards.read_many(names), strict=True)
    }


def _finish(
    shards: storage.Storage, format: clip_making.Format, plan: shard_plan.Plan
) -> records.Index:
    """Writes failures and index, when every planned clip is accounted for."""
    done, failures, infos = _read_done(plan.jobs, shards), list(plan.failures), []
    notes: dict[str, str] = {}
    for job in plan.jobs:
        one = done.get(job.done_name)
        got = -1 if one is None else one["shard"]["num_records"] + len(one["failures"])
        if got != job.lines.count:
            what = "is not finished" if one is None else f"has {got} of {job.lines.count} clips"
            raise RuntimeError(
                f"shard {job.number} of {job.split} in {shards} {what}; delete {job.done_name} "
                "there, if it exists, and run this again"
            )
        failures += one["failures"]
        notes |= one.get("notes", {})  # sets that were begun before there were any
        infos.append(records.ShardInfo(**one["shard"]))
    shards.write(FAILURES_NAME, _lines(failures))
    if notes:
        told = [{"file": source, "note": notes[source]} for source in sorted(notes)]
        shards.write(NOTES_NAME, _lines(told))
        text = f"{len(told)} videos have notes, the first: {told[0]['note']}"
        print(f"{text} (see {shards}/{NOTES_NAME})", file=sys.stderr)
    index = records.Index(
        fps=format.fps,
        height=format.size,
        width=format.size,
        sample_rate_hz=format.sample_rate_hz,
        shards=tuple(info for info in infos if info.num_records),
        num_failures=len(failures),
        fit=format.fit,
        antialias=format.antialias,
    )
    if not index.shards:
        first = f"; the first: {failures[0]['detail']}" if failures else ""
        raise ValueError(f"not one usable clip in {len(failures)} failures{first}")
    for name in shards.sizes():
        of_killed_run = name.startswith(".") and name.endswith(".part")
        if of_killed_run or name.startswith(".probed-") or name == shard_plan.LISTING_NAME:
            shards.remove(name)
    with shards.staging() as staging:
        records.write_index(staging, index)
        shards.publish(staging, records.INDEX_NAME)
    return index


def _lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def make_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """The options of a preparation."""
    parser = file_arguments.Parser(
        prog=prog,
        description=description,
    )
    parser.add_argument("videos", help="folder of videos, or its address (gs://, s3://, ...)")
    parser.add_argument("shards", help="folder to write, or its address")
    parser.add_argument("--manifest", help="make the clips of this list (see data_prep.sources)")
    number = limits.number_argument
    parser.add_argument("--fps", type=number, default=4.0, help="frames per second (4)")
    parser.add_argument("--size", type=int, default=224, help="height and width (224)")
    parser.add_argument(
        "--fit",
        choices=get_args(specs.Fit),
        default="stretch",
        help="how images of another shape are fitted (stretch)",
    )
    parser.add_argument(
        "--antialias",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="smooth what is made smaller (on)",
    )
    parser.add_argument("--sample_rate", type=int, default=16000, help="of the audio, Hz (16000)")
    parser.add_argument("--clip_seconds", type=number, default=10.0, help="length of clips (10)")
    parser.add_argument("--split", default="auto", help="auto, or one name for everything")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clips_per_shard", type=int, default=64, help="on average (64)")
    parser.add_argument(
        "--num_shards", type=int, help="shards of each split, instead of --clips_per_shard"
    )
    parser.add_argument(
        "--seed", type=limits.seed_argument, default=0, help="of the order of the clips (0)"
    )
    parser.add_argument(
        "--limit_s",
        type=number,
        default=TASK_LIMIT_S,
        help=f"seconds to fetch and decode a clip before it is given up ({TASK_LIMIT_S:g})",
    )
    return parser


def run_command(
    parser: argparse.ArgumentParser, args: argparse.Namespace, runner: Runner | None = None
) -> None:
    """Does what the command line says; what goes wrong ends it with one line."""
    numbers = ("fps", "size", "sample_rate", "clips_per_shard", "workers", "limit_s")
    wrong = [f"--{name}" for name in numbers if getattr(args, name) <= 0]
    if wrong or (args.num_shards is not None and args.num_shards <= 0):
        parser.error(f"{', '.join(wrong) or '--num_shards'} must be positive")
    if args.clip_seconds < spans.MIN_SECONDS:
        parser.error(f"--clip_seconds must be at least {spans.MIN_SECONDS}")
    format = clip_making.Format(
        args.fps, args.size, args.sample_rate, args.clip_seconds, args.fit, args.antialias
    )
    try:
        index = prepare(
            args.videos,
            args.shards,
            format,
            split=args.split,
            workers=args.workers,
            clips_per_shard=args.clips_per_shard,
            num_shards=args.num_shards,
            seed=args.seed,
            manifest=args.manifest,
            task_limit_s=args.limit_s,
            runner=runner,
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {reasons.of(error)}")
    counts = ", ".join(f"{index.num_records(split)} {split}" for split in index.splits)
    print(f"{counts} clips in {args.shards}, {index.num_failures} failures", end="")
    print(f" (see {args.shards}/{FAILURES_NAME})" if index.num_failures else "")


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = make_parser("python -m data_prep.prepare", __doc__)
    run_command(parser, parser.parse_args(argv))


if __name__ == "__main__":
    main()
