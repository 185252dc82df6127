"""Jobs of the workers of a preparation, each for `guarded_pool`.

A job reads what it needs from the plan and leaves its result beside the shards, under its name only
when it is complete: a job that is done twice, also by two workers at a time, changes nothing.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import json
import pathlib
import warnings

from data_prep import clip_making, shard_plan, spans, storage
from foley_jax.data import records
from foley_jax.media import container, video
from foley_jax.runtime import outputs, reasons


def look_at(
    job: shard_plan.ProbeJob,
    skip: dict[int, str],
    say: Callable[[int], None],
    *,
    videos: storage.Storage,
    shards: storage.Storage,
    format: clip_making.Format,
) -> None:
    """Planning job: finds the spans of some stretches, and the failures among them."""
    found, failures = [], []
    for task, one in enumerate(shard_plan.read_stretches(shards, job)):
        if task in skip:
            failures.append(shard_plan.failure(one.source, skip[task], "while reading its header"))
            continue
        say(task)
        try:
            with videos.fetched(one.source) as folder:
                found += _spans_of(folder, videos, one, format)
        except storage.StoreError:
            raise
        except video.MediaError as error:
            failures.append(shard_plan.failure(one.source, error.reason, str(error)))
        except Exception as error:  # one bad file never stops the rest
            failures.append(shard_plan.failure(one.source, "error", reasons.of(error)))
    shard_plan.write_probed(shards, job, found, failures)


def _spans_of(
    folder: pathlib.Path,
    videos: storage.Storage,
    one: shard_plan.Segment,
    format: clip_making.Format,
) -> list[spans.Span]:
    try:
        found = clip_making.plan_source(
            folder, one.source, one.split, format, start_s=one.start_s, end_s=one.end_s
        )
    except video.MediaError as error:
        raise _told_of(videos, folder, error) from error
    return [
        dataclasses.replace(span, id=f"{one.name}#{span.part}", labels=one.labels) for span in found
    ]


def _told_of(
    videos: storage.Storage, folder: pathlib.Path, error: video.MediaError
) -> video.MediaError:
    """Returns the same error about the file in its store, not about our copy."""
    return video.MediaError(error.reason, str(error).replace(str(folder), str(videos)))


def write_shard(
    job: shard_plan.ShardJob,
    skip: dict[int, str],
    say: Callable[[int], None],
    *,
    videos: storage.Storage,
    shards: storage.Storage,
    format: clip_making.Format,
) -> None:
    """Shard job: makes the clips of one shard and writes it."""
    failures, notes = [], {}
    with shards.staging() as staging:
        with records.ShardWriter(staging, job.split, job.number) as writer:
            for task, span in enumerate(shard_plan.read_spans(shards, job)):
                if task in skip:
                    failures.append(_failure(span, skip[task], "while decoding"))
                    continue
                say(task)
                try:
                    with _noting(notes, span.source):
                        writer.add(_make_clip(videos, span, format))
                except storage.StoreError:
                    raise
                except video.MediaError as error:
                    failures.append(_failure(span, error.reason, str(error), whole=True))
                except Exception as error:  # one bad file never stops the rest
                    outputs.check_writable(staging)  # a full disk does
                    failures.append(_failure(span, "error", reasons.of(error)))
            say(job.lines.count)  # to finish and send the file has its own time
        info = writer.info
        if info.num_records:
            shards.publish(staging, info.file)
        else:
            shards.remove(info.file)
    content = {"shard": dataclasses.asdict(info), "failures": failures, "notes": notes}
    shards.write(job.done_name, json.dumps(content).encode())


@contextlib.contextmanager
def _noting(notes: dict[str, str], source: str) -> Iterator[None]:
    """Keeps what reading a file warns of, to be said once for all of its clips."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", container.MediaWarning)
        yield
    for one in told:
        if isinstance(one.message, container.MediaWarning):
            notes[source] = one.message.what
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def _make_clip(
    videos: storage.Storage, span: spans.Span, format: clip_making.Format
) -> records.Clip:
    truth = clip_making.truth_name(span.source)
    with videos.fetched(span.source, truth) as folder:
        try:
            return clip_making.make_clip(folder, span, format)
        except video.MediaError as error:
            raise _told_of(videos, folder, error) from error


def _failure(span: spans.Span, reason: str, detail: str, *, whole: bool = False) -> dict[str, str]:
    if not whole:
        detail = f"{span.source} [{span.start_s:g}, {span.end_s:g}] s: {detail}"
    return shard_plan.failure(span.source, reason, detail, clip_id=span.clip_id)


def is_done(sizes: dict[str, int], done: dict) -> bool:
    """Whether a shard that was finished is still there in full.

    Args:
      sizes: name -> bytes of the files that are there.
      done: what `write_shard` left under the job's name.
    """
    info = records.ShardInfo(**done["shard"])
    return info.num_records == 0 or sizes.get(info.file) == info.bytes
