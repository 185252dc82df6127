"""Several audio clips for every video of a split, over devices and processes, each made once.

report = many.run(sample.load("runs/ldm"), ["videos/test"], "out", samples=10)
"""

from collections.abc import Callable, Sequence
import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import tqdm

from foley_jax.diff_foley.sampling import pipeline
from foley_jax.inference import foley, jobs, score_file, timing
from foley_jax.inference.process_group import ProcessGroup
from foley_jax.runtime import limits, outputs, reasons


class IndexedClip(NamedTuple):
    """One audio clip of a video: which one, and the clip."""

    index: int
    clip: foley.Clip


@dataclasses.dataclass(frozen=True)
class Report:
    """Outcome of a run.

    Attributes:
      folders: one for each sample, with NAME.wav for every video and scores.json.
      failures: path -> reason, of the videos that failed, in all processes.
      speed: see `timing.record`; None if nothing was left to make.
    """

    folders: list[Path]
    failures: dict[str, str]
    speed: dict[str, Any] | None


class SeedFolders:
    """`jobs.OutputStore` of several folders; in each the audio of one number for every video."""

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
          videos: whether videos with the audio are written, too.
          clock: of "write" and "mux".
        """
        self.folders, self.clock = folders, clock
        self.suffixes = {".wav": "write", ".mp4": "mux"} if videos else {".wav": "write"}
        self.scores = [score_file.ScoreFile(f, own, index) for f, own in zip(folders, settings)]
        self.check()
        self.made = self.warming = 0
        self.audio_s = 0.0

    def names(self, videos: Sequence[Path]) -> list[str]:
        """One name in all folders; every process finds the same, before any of them writes."""
        return score_file.names_beside(self.scores, videos)

    def missing(self, name: str) -> list[int]:
        """The samples that a video lacks."""

        def there(folder: Path, scores: score_file.ScoreFile) -> bool:
            made = (folder / f"{name}{suffix}" for suffix in self.suffixes)
            return name in scores.done and all(file.exists() for file in made)

        pairs = enumerate(zip(self.folders, self.scores))
        return [k for k, (folder, scores) in pairs if not there(folder, scores)]

    def has(self, name: str) -> bool:
        return not self.missing(name)

    def save(self, clips: Sequence[IndexedClip], name: str) -> None:
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

    def add(self, name: str, video: Path, clips: Sequence[IndexedClip]) -> None:
        for take in clips:
            self.scores[take.index].add(name, {"video": str(video), **take.clip.scores})
            self.audio_s += len(take.clip.audio) / take.clip.sample_rate
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
        """Writes every folder's scores.json; see `score_file.ScoreFile.merge`."""
        for scores in self.scores:
            scores.merge()


@dataclasses.dataclass(frozen=True)
class Job:
    """`jobs.Job`: of every video the audio clips that are missing, from features computed once."""

    foley: foley.Foley
    options: pipeline.Settings
    missing: Callable[[Path], Sequence[int]]
    clock: timing.Clock

    def read(self, video: Path) -> pipeline.Source:
        with self.clock("decode"):
            return self.foley.read(video)

    def make(self, sources: Sequence[pipeline.Source]) -> list[tuple[int, pipeline.GeneratedMel]]:
        wanted = [self.missing(source.path) for source in sources]
        draws = [[pipeline.NoiseSeed(self.options.seed, k) for k in takes] for takes in wanted]
        mels = self.foley.model.draft(sources, self.options, draws)
        return list(zip((k for takes in wanted for k in takes), mels, strict=True))

    def finish(self, made: Sequence[tuple[int, pipeline.GeneratedMel]]) -> list[list[IndexedClip]]:
        mels = [draft for _, draft in made]
        results = self.foley.model.audio_clips(mels, self.options)
        takes: dict[Path, list[IndexedClip]] = {}
        for (k, draft), result in zip(made, results, strict=True):
            path = draft.source.path
            takes.setdefault(path, []).append(IndexedClip(k, self.foley.clip(path, result)))
        return list(takes.values())


def run(
    model: foley.Foley,
    videos: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    samples: int = 10,
    *,
    settings: pipeline.Settings | None = None,
    networks: dict[str, Any] | None = None,
    mux: bool = False,
    group: int | None = None,
) -> Report:
    """Makes `samples` audio clips for every video, those that `out` lacks.

    Sample k has the noise of sample k of `settings.seed` in every command: it is one of those that
    `model(video, seed=..., num_samples=...)` makes, bit for bit where that runs in a batch of the
    same shape on as many devices. Elsewhere its mel differs by float32's rounding (below 1e-5),
    and its audio by what the vocoder makes of that (about 1e-3 for Griffin-Lim, whose first phases
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
      mux: writes NAME.mp4 beside NAME.wav, the video with the audio.
      group: clips in one group; by default as many as fill the devices once.
    Raises:
      FileNotFoundError: no videos.
      ValueError: a setting is out of range, `out` is to be searched, or the model not Diff-Foley's.
    """
    if not isinstance(model, foley.Foley):
        raise ValueError(not_for_others(model.source))
    samples = limits.whole("samples", samples, 1)
    group = None if group is None else limits.whole("group", group, 1)
    settings = dataclasses.replace(settings or pipeline.Settings(), num_samples=1, keep_best=1)
    model.model.check(settings)
    index, count, out = jax.process_index(), jax.process_count(), Path(out)
    paths = jobs.find_inputs(videos, out, tell=index == 0)
    group = group or max(samples, model.model.device_windows * model.model.num_devices)

    clock = timing.Clock()
    networks = networks or {"model": model.source}
    common = {**settings.record(), **networks}
    # sample 0 is what `sample` makes, and describes it so
    described = [{**common, "sample": k} if k else common for k in range(samples)]
    folders = [out / f"seed{settings.seed}_sample{k}" for k in range(samples)]
    store = SeedFolders(folders, described, index=index, videos=mux, clock=clock)
    names = dict(zip(paths, store.names(paths)))
    # told of its stages; and the last group needs no program of its own
    model = model.within(pipeline.Run(watch=clock, pad_groups=True, scratch=out))
    job = Job(model, settings, lambda path: store.missing(names[path]), clock)
    with ProcessGroup(out, index, count) as team:
        failures = _make(job, store, names, team.share(paths), max(1, group // samples))
        tally = clock.tally(store.made, store.warming, store.audio_s)
        accounts = team.gather({"failures": failures, "tally": dataclasses.asdict(tally)})
        failures = {k: why for account in accounts for k, why in account["failures"].items()}
        tallies = [timing.Tally(**account["tally"]) for account in accounts]
        about = _about(settings, networks, model.model.num_devices, count)
        made = timing.record(tallies, about) if any(t.clips for t in tallies) else None
        if index == 0:
            store.merge()
            score_file.write_json(out / "failures.json", failures)
            if made is not None:
                score_file.write_json(out / "speed.json", made)
    return Report(folders, failures, made)


def _make(
    job: Job,
    store: SeedFolders,
    names: dict[Path, str],
    paths: Sequence[Path],
    group: int,
) -> dict[str, str]:
    """This process's share; path -> reason of what failed."""
    bar = tqdm.tqdm(
        total=len(paths), unit="video", desc="generate", disable=jax.process_index() > 0
    )
    with bar, job.clock.running():
        return jobs.Batch(
            job,
            paths,
            store,
            names=[names[path] for path in paths],
            group=group,
            progress=bar.update,
            when_warm=store.warmed,
        ).run()


def _about(
    settings: pipeline.Settings, networks: dict[str, Any], num_devices: int, count: int
) -> dict[str, Any]:
    """Returns everything that speed depends on."""
    named = ("steps", "sampler", "guidance", "alignment", "cache_interval", "preset")
    kind = jax.local_devices()[0].device_kind
    return {
        "devices": f"{num_devices * count} x {kind}",
        "processes": count,
        **{name: getattr(settings, name) for name in named},
        "networks": networks,
    }


def not_for_others(source: str) -> str:
    return (
        f"{source} is no model of Diff-Foley, for which this makes audio for a split's videos; run "
        f"`python -m foley_jax.sample --model={source} --num_samples=N --out=out` (MM-Diffusion: "
        "clips from noise; MMAudio: audio for videos or a text)"
    )
