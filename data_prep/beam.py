"""Turns a folder of videos into shards on a cluster, with Apache Beam.

    python -m data_prep.beam VIDEOS SHARDS --size=64                     # on this machine
    python -m data_prep.beam gs://bucket/videos gs://bucket/shards --manifest=vggsound.jsonl -- \\
        --runner=DataflowRunner --project=NAME --region=us-central1 \\
        --temp_location=gs://bucket/tmp --sdk_container_image=IMAGE
    python -m data_prep.beam /nfs/videos /nfs/shards -- \\
        --runner=FlinkRunner --flink_master=HOST:8081
    python -m data_prep.beam /nfs/videos /nfs/shards -- --runner=SparkRunner

It wants `pip install 'foley_jax[beam]'`. Before `--` stand the options of `data_prep.prepare`,
after it those of Beam. The shards are the same as those of `data_prep.prepare`, byte for byte where
the same versions decode and write; either can go on with what the other began. VIDEOS and SHARDS
must be reachable from every worker, under the same name, and this package installed there (in the
image, or with Beam's --extra_package): stores need gcsfs or s3fs as well.

First the files are looked into, then the shards are made: each is one element of a pipeline, which
a worker makes from the first clip to the last in a process of its own. That is killed when a clip
takes longer than --limit_s, and the clip is a failure as it is there: nothing hangs. What a cluster
does twice is written twice in the same bytes. No clip travels between workers.
"""

import functools
import sys

from data_prep import guarded_pool, prepare

HERE = "DirectRunner"


def run_pipeline(
    jobs: list[prepare.Job],
    run: guarded_pool.Run,
    *,
    task_limit_s: float,
    title: str,
    kept: int,
    flags: list[str],
) -> None:
    """A `prepare.Runner`: every job is an element of a pipeline.

    Args:
      flags: of Beam, e.g. ["--runner=DataflowRunner", ...].
    Raises:
      Exception: whatever the runner raises when a job failed as often as it is tried.
    """
    import apache_beam
    from apache_beam.options import pipeline_options

    tasks = sum(job.lines.count for job in jobs)
    print(f"{title}: {len(jobs)} jobs of {tasks} tasks, {kept} tasks were done", file=sys.stderr)
    work = functools.partial(_run_job, run=run, task_limit_s=task_limit_s)
    options = pipeline_options.PipelineOptions(flags)
    with apache_beam.Pipeline(options=options) as pipeline:
        (
            pipeline
            | "jobs" >> apache_beam.Create(jobs)
            | "one by one" >> apache_beam.Reshuffle()
            | "work" >> apache_beam.Map(work)
        )


def _run_job(job: prepare.Job, *, run: guarded_pool.Run, task_limit_s: float) -> str:
    """Does one job in a process that can be killed."""
    for _ in guarded_pool.run_jobs(
        [job], run, workers=1, task_limit_s=task_limit_s, on_task=lambda *_: None
    ):
        pass
    return job.done_name


def local_flags(flags: list[str], workers: int) -> list[str]:
    """Beam's flags, completed for this machine if they name no other runner.

    Threads are enough to wait for the processes that work.
    """
    names = {flag.partition("=")[0] for flag in flags}
    if "--runner" in names and not {f"--runner={HERE}", HERE} & set(flags):
        return flags
    ours = {
        "--runner": HERE,
        "--direct_running_mode": "multi_threading",
        "--direct_num_workers": workers,
    }
    return [*flags, *(f"{name}={value}" for name, value in ours.items() if name not in names)]


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    argv = sys.argv[1:] if argv is None else argv
    at = argv.index("--") if "--" in argv else len(argv)
    parser = prepare.make_parser("python -m data_prep.beam", __doc__)
    args, flags = parser.parse_args(argv[:at]), argv[at + 1 :]
    try:
        import apache_beam  # noqa: F401
    except ImportError:
        parser.error("Apache Beam is not installed: pip install 'foley_jax[beam]'")
    flags = local_flags(flags, args.workers)
    prepare.run_command(parser, args, functools.partial(run_pipeline, flags=flags))


if __name__ == "__main__":
    # Beam's workers must find these functions by the module's own name
    from data_prep import beam

    beam.main()
