"""Many sounds for every video of a split, as an evaluation wants them.

python -m foley_jax.generate videos/test --model=runs/ldm --samples=10 --out=out
python -m foley_jax.generate videos/test --model=official/ --samples=10 --out=out --videos
python -m foley_jax.evaluation --protocol=onsets --reference=videos/test --out=report \\
    --generated=ours=out/seed0_sample0 --generated=ours=out/seed0_sample1

from foley_jax import generate, sample
report = generate.run(sample.load("runs/ldm"), ["videos/test"], "out", samples=10)
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import json
import os
from pathlib import Path
import sys
import time
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
import tqdm

from foley_jax import sample
from foley_jax.diff_foley.sampling import pipeline
from foley_jax.inference import flags, jobs, load, timing
from foley_jax.media import file_arguments, names
from foley_jax.runtime import compile_cache, limits, outputs, reasons, sharding

POLL_S = 0.5  # how often a process looks whether the others have ended


class Take(NamedTuple):
    """One sound of a video: which one, and the clip."""

    index: int
    clip: sample.Clip


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run has made.

    Attributes:
      folders: one for each sample, with NAME.wav for every video and scores.json.
      failures: path -> reason, of the videos that failed, in all processes.
      speed: see `timing.record`; None if nothing was left to make.
    """

    folders: list[Path]
    failures: dict[str, str]
    speed: dict[str, Any] | None


class Runs:
    """`jobs.Shelf` of several folders; in each the sound of one number for every video."""

    def __init__(
        self,
        folders: Sequence[Path],
        settings: Sequence[dict],
        *,
        index: int,
        videos: bool,
        clock: timing.Clock,
    ):
        """Finds what is there.

        Args:
          folders: of the samples.
          settings: of the samples; what was made with others is made again.
          index: of this process.
          videos: whether pictures with sound are written, too.
          clock: of "write" and "mux".
        """
        self.folders, self.clock = folders, clock
        self.suffixes = {".wav": "write", ".mp4": "mux"} if videos else {".wav": "write"}
        self.scores = [jobs.ScoreFile(f, own, index) for f, own in zip(folders, settings)]
        self.check()
        self.made = self.warming = 0
        self.sound_s = 0.0

    def names(self, videos: Sequence[Path]) -> list[str]:
        """One name in all folders; every process finds the same, before any of them writes."""
        return jobs.names_beside(self.scores, videos)

    def missing(self, name: str) -> list[int]:
        """The samples that a video lacks."""

        def there(folder: Path, scores: jobs.ScoreFile) -> bool:
            made = (folder / f"{name}{suffix}" for suffix in self.suffixes)
            return name in scores.done and all(file.exists() for file in made)

        pairs = enumerate(zip(self.folders, self.scores))
        return [k for k, (folder, scores) in pairs if not there(folder, scores)]

    def has(self, name: str) -> bool:
        return not self.missing(name)

    def save(self, clips: Sequence[Take], name: str) -> None:
        saved, lost = [], []
        for take in clips:
            try:
                for suffix, stage in self.suffixes.items():
                    with self.clock(stage):
                        take.clip.save(self.folders[take.index] / f"{name}{suffix}")
                saved.append(take)
            except Exception as error:  # the other samples are kept
                lost.append(f"sample {take.index}: {reasons.of(error)}")
        if lost:
            raise outputs.PartlySavedError(saved, "; ".join(lost))

    def add(self, name: str, video: Path, clips: Sequence[Take]) -> None:
        for take in clips:
            self.scores[take.index].add(name, {"video": str(video), **take.clip.scores})
            self.sound_s += len(take.clip.audio) / take.clip.sample_rate
        self.made += len(clips)

    def warmed(self) -> None:
        """The first group is done."""
        self.warming = self.made
        self.clock.restart()

    def check(self) -> None:
        for folder in self.folders:
            outputs.check_writable(folder)

    def close(self) -> None:
        """Nothing: the folders' files are merged when all processes have ended."""

    def merge(self) -> None:
        """Writes every folder's scores.json; see `jobs.ScoreFile.merge`."""
        for scores in self.scores:
            scores.merge()


@dataclasses.dataclass(frozen=True)
class Job:
    """`jobs.Job`: of every video the sounds that are missing, from features computed once."""

    foley: sample.Foley
    options: pipeline.Settings
    missing: Callable[[Path], Sequence[int]]
    clock: timing.Clock

    def read(self, video: Path) -> pipeline.Source:
        with self.clock("decode"):
            return self.foley.read(video)

    def make(self, sources: Sequence[pipeline.Source]) -> list[tuple[int, pipeline.Draft]]:
        wanted = [self.missing(source.path) for source in sources]
        draws = [[pipeline.Draw(self.options.seed, k) for k in takes] for takes in wanted]
        drafts = self.foley.model.draft(sources, self.options, draws)
        return list(zip((k for takes in wanted for k in takes), drafts, strict=True))

    def finish(self, made: Sequence[tuple[int, pipeline.Draft]]) -> list[list[Take]]:
        drafts = [draft for _, draft in made]
        results = self.foley.model.sounds(drafts, self.options)
        takes: dict[Path, list[Take]] = {}
        for (k, draft), result in zip(made, results, strict=True):
            path = draft.source.path
            takes.setdefault(path, []).append(Take(k, self.foley.clip(path, result)))
        return list(takes.values())


def run(
    model: sample.Foley,
    videos: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    samples: int = 10,
    *,
    settings: pipeline.Settings | None = None,
    networks: dict[str, Any] | None = None,
    mux: bool = False,
    group: int | None = None,
) -> Report:
    """Makes `samples` sounds for every video, those that `out` lacks.

    Sample k has the noise of sample k of `settings.seed` in every command: it is one of those that
    `model(video, seed=..., num_samples=...)` makes, bit for bit where that runs in a batch of the
    same shape on as many devices. Elsewhere its mel differs by float32's rounding (below 1e-5),
    and its sound by what the vocoder makes of that (about 1e-3 for Griffin-Lim, whose first phases
    may jump). `sample` with the same settings on the command line continues the folder of sample 0.

    Over several processes (`jax.distributed`, which must be up) each makes every count-th video,
    on its own devices; they need one file system, and end together.

    Args:
      model: of `sample.load`; what devices it uses was decided there.
      videos: files, or folders to search.
      out: receives seedS_sampleK/NAME.wav and scores.json there, failures.json and speed.json.
      samples: how many for each video.
      settings: steps, guidance and so on, and the seed; by default the usual ones.
      networks: where the model comes from, for scores.json; by default {"model": model.source}.
      mux: writes NAME.mp4 beside NAME.wav, the picture with the sound.
      group: clips in one group; by default as many as fill the devices once.
    Raises:
      FileNotFoundError: no videos.
      ValueError: a setting is out of range, `out` is to be searched, or the model MM-Diffusion's.
    """
    if not isinstance(model, sample.Foley):
        raise ValueError(_not_for_sounding(model.source))
    samples = limits.whole("samples", samples, 1)
    group = None if group is None else limits.whole("group", group, 1)
    settings = dataclasses.replace(settings or pipeline.Settings(), num_samples=1, keep_best=1)
    model.model.check(settings)
    index, count, out = jax.process_index(), jax.process_count(), Path(out)
    paths = jobs.find_inputs(videos, out, tell=index == 0)
    group = group or max(samples, model.model.device_windows * model.model.num_devices)

    clock = timing.Clock()
    networks = networks or {"model": model.source}
    common = {**dataclasses.asdict(settings), **networks}
    # sample 0 is what `sample` makes, and describes it so
    described = [{**common, "sample": k} if k else common for k in range(samples)]
    folders = [out / f"seed{settings.seed}_sample{k}" for k in range(samples)]
    shelf = Runs(folders, described, index=index, videos=mux, clock=clock)
    names = dict(zip(paths, shelf.names(paths)))
    job = Job(model, settings, lambda path: shelf.missing(names[path]), clock)
    with Team(out, index, count) as team:
        failures = _make(job, shelf, names, team.share(paths), max(1, group // samples), out)
        tally = clock.tally(shelf.made, shelf.warming, shelf.sound_s)
        accounts = team.gather({"failures": failures, "tally": dataclasses.asdict(tally)})
        failures = {k: why for account in accounts for k, why in account["failures"].items()}
        tallies = [timing.Tally(**account["tally"]) for account in accounts]
        about = _about(settings, networks, model.model.num_devices, count)
        made = timing.record(tallies, about) if any(t.clips for t in tallies) else None
        if index == 0:
            shelf.merge()
            jobs.write_json(out / "failures.json", failures)
            if made is not None:
                jobs.write_json(out / "speed.json", made)
    return Report(folders, failures, made)


def _make(
    job: Job,
    shelf: Runs,
    names: dict[Path, str],
    paths: Sequence[Path],
    group: int,
    scratch: Path,
) -> dict[str, str]:
    """This process's share; path -> reason of what failed."""
    bar = tqdm.tqdm(
        total=len(paths), unit="video", desc="generate", disable=jax.process_index() > 0
    )
    with bar, job.clock.running(), _watched(job.foley.model, job.clock, scratch):
        return jobs.Batch(
            job,
            paths,
            shelf,
            names=[names[path] for path in paths],
            group=group,
            progress=bar.update,
            when_warm=shelf.warmed,
        ).run()


@contextlib.contextmanager
def _watched(model: pipeline.DiffFoley, clock: timing.Clock, scratch: Path) -> Iterator[None]:
    """The model tells the clock its stages, and its last group needs no program of its own."""
    before = model.watch, model.room, model.scratch
    model.watch, model.room, model.scratch = clock, 0, scratch
    try:
        yield
    finally:
        model.watch, model.room, model.scratch = before


def _about(
    settings: pipeline.Settings, networks: dict[str, Any], num_devices: int, count: int
) -> dict[str, Any]:
    """What speed depends on."""
    named = ("steps", "sampler", "guidance", "alignment", "cache_interval", "preset")
    kind = jax.local_devices()[0].device_kind
    return {
        "devices": f"{num_devices * count} x {kind}",
        "processes": count,
        **{name: getattr(settings, name) for name in named},
        "networks": networks,
    }


class Team:
    """The processes of one run; alone, it has nothing to wait for.

    They meet through files of `out`, because they end at times that are far apart: collectives
    give up after minutes. A process that is stopped by an exception stops the others; one that
    is killed does so too, by the heartbeat of `jax.distributed`.
    """

    def __init__(self, out: Path, index: int, count: int):
        self.out, self.index, self.count = out, index, count

    def __enter__(self) -> "Team":
        self.out.mkdir(parents=True, exist_ok=True)
        self._account(self.index).unlink(missing_ok=True)  # of a run that was killed
        self._meet("generate begins")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if kind is None:
            self._meet("generate ends")
            self._account(self.index).unlink()
        elif self.count > 1:
            with contextlib.suppress(OSError):  # a full disk; the error itself goes on
                jobs.write_json(self._account(self.index), {"error": f"{kind.__name__}: {error}"})

    def share(self, paths: Sequence[Path]) -> list[Path]:
        """Every count-th."""
        return list(paths[self.index :: self.count])

    def gather(self, account: dict[str, Any]) -> list[dict[str, Any]]:
        """The accounts of all processes, in order, when they all have ended.

        Raises:
          RuntimeError: another one was stopped by an exception.
        """
        jobs.write_json(self._account(self.index), account)
        files = [self._account(i) for i in range(self.count)]
        while not all(file.exists() for file in files):
            time.sleep(POLL_S)
        accounts = [json.loads(file.read_text()) for file in files]
        for index, other in enumerate(accounts):
            if "error" in other:
                raise RuntimeError(f"process {index} of {self.count} stopped: {other['error']}")
        return accounts

    def _account(self, index: int) -> Path:
        return self.out / f"process{index}.json"

    def _meet(self, name: str) -> None:
        if self.count > 1:
            multihost_utils.sync_global_devices(name)


# ---- command line -----------------------------------------------------------------------------


def _not_for_sounding(source: str) -> str:
    return (
        f"{source} is MM-Diffusion's, which makes clips from noise, not sound for a split's "
        f"videos; run `python -m foley_jax.sample --model={source} --num_samples=2048 --out=out`"
    )


def parser() -> argparse.ArgumentParser:
    p = file_arguments.Parser(
        prog="python -m foley_jax.generate",
        description=__doc__,
        epilog=f"""Sample K of a video NAME is out/seedS_sampleK/NAME.wav with S = --seed: the
sound that `python -m foley_jax.sample --seed=S --num_samples=N` makes as its sample K. A folder is
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
        help="workdir of an ldm run (runs/ldm), folder of official files, or hub:OWNER/NAME",
    )
    p.add_argument("--out", default="out", help="output folder (default: out)")
    count = limits.count_argument
    p.add_argument("--samples", type=count, default=10, help="sounds for each video (default: 10)")
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
            sharding.join_processes()
        compile_cache.turn_on()
        if load.makes_sounding_video(args.model):
            raise ValueError(_not_for_sounding(args.model))
        own = {name: getattr(args, name, None) for name in sample.NETWORKS}
        report = run(
            sample.load(args.model, devices=args.devices, **own),
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
        print(f"{args.samples} sounds for each video, in {report.folders[0]} and so on")
        if report.speed is not None:
            print(timing.table(report.speed))
        for path, reason in report.failures.items():
            print(names.shown(f"failed: {path}: {reason}"), file=sys.stderr)
    return 1 if report.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
