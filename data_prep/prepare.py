"""Turns a folder of videos into shards that training reads.

    python -m data_prep.prepare VIDEOS SHARDS              # 224x224 at 4 fps, 16 kHz, 10 s clips
    python -m data_prep.prepare VIDEOS SHARDS --size=64    # the demo's size
    python -m data_prep.prepare VIDEOS SHARDS --fps=10 --size=64 --fit=letterbox    # MM-Diffusion
    python -m data_prep.prepare VIDEOS SHARDS --fps=10 --size=256 --fit=letterbox   # its super-res.

Videos may lie in subfolders; one named train, test or val gives the split, else a hash of the path
does. Longer videos are cut into consecutive clips. A file NAME.json beside NAME.mp4 may hold
`labels` and true `events`. A broken video never stops the work: SHARDS/failures.jsonl says which
and why. Kill and start again at will: finished shards are kept. The result does not depend on the
number of workers or on interruptions. SHARDS/index.json appears when all is done.

Pictures of another shape are stretched, as Diff-Foley has them, or keep their shape between black
bars (--fit=letterbox), as MM-Diffusion has them. Its official code smooths what it makes smaller
with torchvision 0.17 and later, and did not with the versions of its time, nor does it for its
super-resolution: add --no-antialias to continue the released weights. The index says what was
done, and the config of a training must say the same (config.video.fit, config.video.antialias).
"""

import argparse
from collections.abc import Callable
import dataclasses
import functools
import json
import os
import pathlib
import sys
from typing import get_args

import tqdm

from data_prep import clip_making, guarded_pool, spans
from foley_jax.data import records
from foley_jax.media import specs, video

PLAN_NAME = ".plan.json"  # the work list: fixed by the first run, followed by later ones
FAILURES_NAME = "failures.jsonl"
PROBE_CHUNK = 64  # files per planning job
TASK_LIMIT_S = 120.0


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """One shard: its place in the set and the spans that go into it."""

    split: str
    number: int
    spans: tuple[spans.Span, ...]

    @property
    def done_name(self) -> str:
        """File that says the shard is finished, and how."""
        return f".done-{self.split}-{self.number:05d}.json"


def failure(source: str, reason: str, detail: str) -> dict[str, str]:
    """One line of failures.jsonl."""
    return {"file": source, "reason": reason, "detail": detail}


def probe_files(
    job: list[str],
    skip: dict[int, str],
    say: Callable[[int], None],
    *,
    videos: pathlib.Path,
    split: str,
    format: clip_making.Format,
) -> tuple[list[spans.Span], list[dict]]:
    """Planning job: the spans of some files, and the failures among them."""
    found, failures = [], []
    for task, source in enumerate(job):
        if task in skip:
            failures.append(failure(source, skip[task], "while reading its header"))
            continue
        say(task)
        try:
            there = spans.split_of(source, split)
            found += clip_making.plan_source(videos, source, there, format)
        except video.MediaError as error:
            failures.append(failure(source, error.reason, str(error)))
        except Exception as error:  # one bad file never stops the rest
            failures.append(failure(source, "error", repr(error)))
    return found, failures


def write_shard(
    job: ShardJob,
    skip: dict[int, str],
    say: Callable[[int], None],
    *,
    videos: pathlib.Path,
    shards: pathlib.Path,
    format: clip_making.Format,
) -> tuple[records.ShardInfo, list[dict]]:
    """Shard job: makes the clips of one shard and writes it."""
    failures = []
    with records.ShardWriter(shards, job.split, job.number) as writer:
        for task, span in enumerate(job.spans):
            name = f"{span.source} [{span.start_s:g}, {span.end_s:g}] s"
            if task in skip:
                failures.append(failure(span.source, skip[task], f"{name}: while decoding"))
                continue
            say(task)
            try:
                clip = clip_making.make_clip(videos, span, format)
            except video.MediaError as error:
                failures.append(failure(span.source, error.reason, str(error)))
            except Exception as error:  # one bad file never stops the rest
                failures.append(failure(span.source, "error", f"{name}: {error!r}"))
            else:
                writer.add(clip)
    info = writer.info
    content = {"shard": dataclasses.asdict(info), "failures": failures}
    _write_whole(shards / job.done_name, json.dumps(content))
    return info, failures


def make_plan(
    videos: pathlib.Path, settings: dict, format: clip_making.Format, workers: int
) -> dict:
    """Looks at every file once and fixes which clip goes into which shard."""
    files = spans.find_videos(videos)
    chunks = [files[i : i + PROBE_CHUNK] for i in range(0, len(files), PROBE_CHUNK)]
    found, failures = [], []
    bar = tqdm.tqdm(total=len(files), unit="file", desc="looking at videos")
    run = functools.partial(probe_files, videos=videos, split=settings["split"], format=format)
    jobs = guarded_pool.run_jobs(
        chunks,
        run,
        workers=min(workers, len(chunks)),
        task_limit_s=settings["task_limit_s"],
        on_task=lambda *_: bar.update(),
    )
    for _, (some_spans, some_failures) in jobs:
        found += some_spans
        failures += some_failures
    bar.close()
    found.sort(key=lambda span: (span.split, span.source, span.part))
    failures.sort(key=lambda one: one["file"])
    shards = []
    for split in sorted({span.split for span in found}):
        mine = [span for span in found if span.split == split]
        step = settings["clips_per_shard"]
        shards += [
            {
                "split": split,
                "number": i,
                "spans": [dataclasses.asdict(s) for s in mine[at : at + step]],
            }
            for i, at in enumerate(range(0, len(mine), step))
        ]
    return {"settings": settings, "files": files, "failures": failures, "shards": shards}


def read_plan(path: pathlib.Path, settings: dict) -> dict | None:
    """The plan of an earlier run, if there is one.

    Raises:
      ValueError: it was made with other settings.
    """
    if not path.is_file():
        return None
    plan = json.loads(path.read_text())
    ours = {k: v for k, v in settings.items() if k != "task_limit_s"}
    # plans of earlier versions do not say how pictures are fitted: they were stretched
    theirs = {"fit": "stretch", "antialias": True, **plan["settings"]}
    changed = [f"{k} was {theirs.get(k)}, now {ours[k]}" for k in ours if ours[k] != theirs.get(k)]
    if changed:
        raise ValueError(
            f"{path.parent} was begun with other settings ({'; '.join(changed)}); "
            "use the same ones, or another folder"
        )
    return plan


def prepare(
    videos: pathlib.Path,
    shards: pathlib.Path,
    format: clip_making.Format,
    *,
    split: str = "auto",
    workers: int = 1,
    clips_per_shard: int = 64,
    task_limit_s: float = TASK_LIMIT_S,
) -> records.Index:
    """Prepares a whole folder; see the top of this file.

    Args:
      videos: folder of videos.
      shards: folder to write.
      format: rate, size and length of the clips.
      split: "auto" or one name for everything.
      workers: parallel processes.
      clips_per_shard: a shard holds so many clips, the last one of a split fewer.
      task_limit_s: a clip that takes longer to decode is given up.
    Returns:
      The index that was written.
    Raises:
      ValueError: no videos, not one usable clip, or `shards` was begun with other settings.
    """
    settings = {**dataclasses.asdict(format), "split": split, "clips_per_shard": clips_per_shard}
    settings["task_limit_s"] = task_limit_s
    plan = read_plan(shards / PLAN_NAME, settings)
    if plan is None:
        plan = make_plan(videos, settings, format, workers)
        shards.mkdir(parents=True, exist_ok=True)
        _write_whole(shards / PLAN_NAME, json.dumps(plan))
    elif unplanned := len(set(spans.find_videos(videos)) - set(plan["files"])):
        print(
            f"{unplanned} videos came after {shards} was begun and are left out; "
            "prepare them into another folder, or delete this one",
            file=sys.stderr,
        )
    jobs = [
        ShardJob(s["split"], s["number"], tuple(spans.Span(**one) for one in s["spans"]))
        for s in plan["shards"]
    ]
    _write_missing(jobs, videos, shards, format, workers, task_limit_s)
    done = [json.loads((shards / job.done_name).read_text()) for job in jobs]
    return _finish(shards, format, done, plan["failures"])


def _write_missing(
    jobs: list[ShardJob],
    videos: pathlib.Path,
    shards: pathlib.Path,
    format: clip_making.Format,
    workers: int,
    task_limit_s: float,
) -> None:
    missing = [job for job in jobs if not _is_done(shards, job)]
    counts = [len(job.spans) for job in jobs]
    kept = sum(counts) - sum(len(job.spans) for job in missing)
    bar = tqdm.tqdm(total=sum(counts), initial=kept, unit="clip", desc=str(shards))
    run = functools.partial(write_shard, videos=videos, shards=shards, format=format)
    begun: set[tuple[str, int, int]] = set()

    def on_task(job: ShardJob, task: int) -> None:
        if (key := (job.split, job.number, task)) not in begun:
            begun.add(key)
            bar.update()

    for _ in guarded_pool.run_jobs(
        missing, run, workers=workers, task_limit_s=task_limit_s, on_task=on_task
    ):
        pass
    bar.close()


def _is_done(shards: pathlib.Path, job: ShardJob) -> bool:
    """Whether a shard is finished and still there in full."""
    path = shards / job.done_name
    if not path.is_file():
        return False
    info = records.ShardInfo(**json.loads(path.read_text())["shard"])
    shard = shards / info.file
    return info.num_records == 0 or (shard.is_file() and shard.stat().st_size == info.bytes)


def _finish(
    shards: pathlib.Path, format: clip_making.Format, done: list[dict], failures: list[dict]
) -> records.Index:
    failures = failures + [one for shard in done for one in shard["failures"]]
    lines = "".join(json.dumps(one) + "\n" for one in failures)
    _write_whole(shards / FAILURES_NAME, lines)
    infos = tuple(records.ShardInfo(**one["shard"]) for one in done)
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
    for left_over in shards.glob(".*.part"):  # of killed runs
        left_over.unlink(missing_ok=True)
    records.write_index(shards, index)
    return index


def _write_whole(path: pathlib.Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("videos", type=pathlib.Path, help="folder of videos")
    parser.add_argument("shards", type=pathlib.Path, help="folder to write")
    parser.add_argument("--fps", type=float, default=4.0, help="frames per second (4)")
    parser.add_argument("--size", type=int, default=224, help="height and width (224)")
    parser.add_argument(
        "--fit",
        choices=get_args(specs.Fit),
        default="stretch",
        help="how pictures of another shape are fitted (stretch)",
    )
    parser.add_argument(
        "--antialias",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="smooth what is made smaller (on)",
    )
    parser.add_argument("--sample_rate", type=int, default=16000, help="of the sound, Hz (16000)")
    parser.add_argument("--clip_seconds", type=float, default=10.0, help="length of clips (10)")
    parser.add_argument("--split", default="auto", help="auto, or one name for everything")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clips_per_shard", type=int, default=64)
    parser.add_argument(
        "--limit_s", type=float, default=TASK_LIMIT_S, help="seconds before a clip is given up"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = _parser()
    args = parser.parse_args(argv)
    if min(args.fps, args.size, args.sample_rate, args.clips_per_shard, args.workers) <= 0:
        parser.error("--fps, --size, --sample_rate, --clips_per_shard, --workers must be positive")
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
            task_limit_s=args.limit_s,
        )
    except ValueError as error:
        sys.exit(f"error: {error}")
    counts = ", ".join(f"{index.num_records(split)} {split}" for split in index.splits)
    print(f"{counts} clips in {args.shards}, {index.num_failures} failures", end="")
    print(f" (see {args.shards / FAILURES_NAME})" if index.num_failures else "")


if __name__ == "__main__":
    main()
