"""Sound for silent videos, and sounding videos: the public Python API and the command line.

from foley_jax import sample
foley = sample.load("runs/ldm")  # or a folder of official files, or "hub:OWNER/NAME"
clip = foley("silent.mp4", seed=0, steps=25, guidance=4.5, alignment=50.0, num_samples=4)
clip.save("with_sound.mp4"); clip.save("sound.wav"); clip.plot("mel.png")

av = sample.load("runs/mm_diffusion")  # MM-Diffusion: see `foley_jax.inference.sounding_video`
av.generate(num_samples=4); av.audio_for("silent.mp4"); av.video_for("music.wav")

python -m foley_jax.sample silent.mp4 folder/ --model=runs/ldm --out=out
python -m foley_jax.sample --model=runs/mm_diffusion --num_samples=16 --out=out
"""

import argparse
from collections.abc import Sequence
import dataclasses
import os
from pathlib import Path
import sys

import numpy as np
import tqdm

from foley_jax.diff_foley import sources as sources_lib
from foley_jax.diff_foley.sampling import pipeline
from foley_jax.inference import flags, jobs, sounding_video
from foley_jax.inference import load as loading
from foley_jax.media import audio as audio_io
from foley_jax.media import file_arguments, level, names, plots
from foley_jax.media import video as video_io
from foley_jax.runtime import compile_cache, limits, reasons

# networks beside the model itself, and their compute type
NETWORKS = ("cavp", "classifier", "vocoder", "super_resolution", "dtype")
RECONSTRUCTED_S = 120.0  # the memory of the autoencoder's attention grows with the square


@dataclasses.dataclass(frozen=True)
class Clip:
    """Generated sound for one video.

    Attributes:
      audio: float32 [samples] in about [-1, 1]; `sample_rate` in Hz. Of long videos it is an
        `np.memmap`, and so is `mel_FT`.
      mel_FT: log-mel in [0, 1] that the sound was made from; `frame_s` seconds a frame.
      scores: name -> number: `cavp_similarity` of sound and picture, with a classifier
        `alignment`, its probability that they belong together, and where `audio` is beyond full
        scale `gain_db`, by which it is lowered in files.
      video: path of the video the sound belongs to.
      sample: its number among those of its seed.
      fault: why it is no sound, and at which step it became none; empty if it is one.
    """

    audio: np.ndarray
    sample_rate: int
    mel_FT: np.ndarray
    frame_s: float
    scores: dict[str, float]
    video: Path
    sample: int = 0
    fault: str = ""

    def save(self, path: str | os.PathLike) -> None:
        """Writes `.wav`, or a video file with the original picture and this sound.

        Raises:
          ValueError: the suffix is neither `.wav` nor a video container, or the sound is not
            finite.
        """
        if self.fault:
            raise ValueError(self.fault)
        jobs.save_clip(
            path,
            self.audio,
            self.sample_rate,
            name=str(self.video),
            save_video=lambda to, audio: video_io.mux(self.video, audio, self.sample_rate, to),
        )

    def plot(self, path: str | os.PathLike) -> None:
        """Draws the log-mel over time and frequency into a PNG."""
        plots.save_mel(path, self.mel_FT, self.frame_s, title=self.video.name)


class Foley:
    """A loaded Diff-Foley model; call it with a video."""

    def __init__(self, model: pipeline.DiffFoley, source: str):
        self.model, self.source = model, source

    def __call__(
        self,
        video: str | os.PathLike,
        *,
        seed: int = 0,
        steps: int = 25,
        guidance: float = 4.5,
        alignment: float = 50.0,
        num_samples: int = 1,
        keep_best: int = 1,
        sampler: str = "dpm_solver",
        cache_interval: int = 1,
        cache_depth: int = 1,
        preset: str = "default",
    ) -> Clip | list[Clip]:
        """Makes sound for one video of any length, frame rate and size.

        Args:
          video: path of a file with a picture stream; its own sound, if any, is not read.
          seed: 0 to 2**64 - 1; same seed, video name and settings give the same sound.
          steps: solver steps.
          guidance: classifier-free guidance scale; 1 is no guidance.
          alignment: scale of the alignment classifier's guidance; 0, or a model loaded without
            a classifier, is none.
          num_samples: how many sounds to make.
          keep_best: how many to return, best first (see `Clip.scores`); one is returned as a
            Clip, several as a list.
          sampler: "dpm_solver" (DPM-Solver++(2M)), "ddim" or "plms".
          cache_interval, cache_depth: the U-Net's deep layers are computed at every
            `cache_interval`-th step only, for speed; see `solve.Settings`.
          preset: "default", or "official": the published notebook with its mistakes, among them
            a pitch that is 27 % low; see `solve.Settings`.
        Raises:
          foley_jax.media.video.MediaError: the file has no readable picture.
          ValueError: a setting is out of range, or no sound is finite; the message then names the
            solver step, the window and the term where it began.
        """
        settings = pipeline.Settings(
            seed=seed,
            steps=steps,
            guidance=guidance,
            alignment=alignment,
            num_samples=num_samples,
            keep_best=keep_best,
            sampler=sampler,
            cache_interval=cache_interval,
            cache_depth=cache_depth,
            preset=preset,
        )
        self.model.check(settings)  # before the file is read
        results = self.model.generate([self.read(video)], settings)[0]
        clips = [self.clip(video, result) for result in results]
        if clips[0].fault:  # of the best one
            raise ValueError(f"{video}: {clips[0].fault}")
        return clips[0] if keep_best == 1 else clips

    def read(self, video: str | os.PathLike) -> pipeline.Source:
        """Decodes what the model needs of a video (frames at its fps and size, duration).

        Of a video of minutes the frames are decoded later, while their features are computed.
        """
        whole = video_io.read_whole(video, self.model.video, most_bytes=sources_lib.HELD_BYTES)
        return pipeline.Source(Path(video), *whole)

    def read_sound(self, video: str | os.PathLike) -> pipeline.Sound:
        """Decodes a video's own sound at the model's rate.

        Raises:
          foley_jax.media.video.MediaError: no readable sound, or more than `RECONSTRUCTED_S`.
        """
        _, length_s = audio_io.rate_and_length(video)
        if length_s > RECONSTRUCTED_S:
            raise video_io.MediaError(
                "unsupported",
                f"{video} lasts {length_s:.0f} s; at most {RECONSTRUCTED_S:.0f} s go through the "
                "autoencoder in one piece; cut it into parts",
            )
        return pipeline.Sound(Path(video), audio_io.load(video, self.model.audio.sample_rate_hz))

    def clip(self, video: str | os.PathLike, result: pipeline.Result) -> Clip:
        """Wraps a generated result with the file it belongs to."""
        audio = self.model.audio
        return Clip(
            audio=result.audio,
            sample_rate=audio.sample_rate_hz,
            mel_FT=result.mel_FT,
            frame_s=audio.frame_s,
            scores={**result.scores, **level.report(result.audio)},
            video=Path(video),
            sample=result.sample,
            fault=result.fault,
        )


def load(
    model: str | os.PathLike,
    *,
    cavp: str | os.PathLike | None = None,
    classifier: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    vocoder: str | os.PathLike | None = None,
    super_resolution: str | os.PathLike | None = None,
    dtype: str | None = None,
    devices: int | None = None,
) -> Foley | sounding_video.SoundingVideo:
    """Loads a trained, converted or official model of either system.

    Diff-Foley's (see `load.diff_foley`) gives a `Foley`; MM-Diffusion's, for which
    `super_resolution` may be given (see `load.mm_diffusion`), a `SoundingVideo`.

    Raises:
      ValueError: a network is given that the model's system does not know.
    """
    others = {"cavp": cavp, "classifier": classifier, "vocoder": vocoder}
    if loading.makes_sounding_video(model):
        _refuse(others, f"{model} is MM-Diffusion's")
        made = loading.mm_diffusion(
            model, super_resolution=super_resolution, dtype=dtype, devices=devices
        )
        return sounding_video.SoundingVideo(made, str(model))
    _refuse({"super_resolution": super_resolution}, f"{model} is Diff-Foley's")
    networks = loading.diff_foley(
        model, cavp=cavp, classifier=classifier, vocoder=vocoder, dtype=dtype, devices=devices
    )
    return Foley(networks, str(model))


def _refuse(networks: dict[str, object], why: str) -> None:
    given = [name for name, network in networks.items() if network]
    if given:
        raise ValueError(f"{why}, which has no {' and no '.join(given)}; leave it out")


# ---- command line -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class GenerateJob:
    """Generated sound for each video."""

    foley: Foley
    options: pipeline.Settings
    networks: dict[str, str | None]  # where they come from

    def read(self, video: Path) -> pipeline.Source:
        return self.foley.read(video)

    def make(self, sources: Sequence[pipeline.Source]) -> list[pipeline.Draft]:
        return self.foley.model.draft(sources, self.options)

    def finish(self, drafts: Sequence[pipeline.Draft]) -> list[list[Clip]]:
        every = range(0, len(drafts), self.options.num_samples)
        results = self.foley.model.finish(drafts, self.options)
        paths = [drafts[i].source.path for i in every]
        return [[self.foley.clip(p, r) for r in group] for p, group in zip(paths, results)]

    def settings(self) -> dict:
        return {**dataclasses.asdict(self.options), **self.networks}


@dataclasses.dataclass(frozen=True)
class ReconstructJob:
    """Each video's own sound through autoencoder and vocoder: the ceiling of generation."""

    foley: Foley

    def read(self, video: Path) -> pipeline.Sound:
        return self.foley.read_sound(video)

    def make(self, sources: Sequence[pipeline.Sound]) -> Sequence[pipeline.Sound]:
        return sources

    def finish(self, sources: Sequence[pipeline.Sound]) -> list[list[Clip]]:
        results = self.foley.model.reconstruct(sources)
        return [[self.foley.clip(s.path, r)] for s, r in zip(sources, results)]

    def settings(self) -> dict:
        return {"reconstruct": True, "model": self.foley.source}


def parser() -> argparse.ArgumentParser:
    p = file_arguments.Parser(
        prog="python -m foley_jax.sample",
        description="Puts generated sound to silent videos (Diff-Foley), or makes sounding videos, "
        "and each from the other (MM-Diffusion).",
        epilog=f"""examples:
  python -m foley_jax.sample silent.mp4 --model=runs/ldm --out=out
  python -m foley_jax.sample my_videos/ --model=runs/ldm --classifier=runs/alignment --out=out
  python -m foley_jax.sample silent.mp4 --model=official_files/ --num_samples=4 --keep_best=2
  python -m foley_jax.sample --model=runs/mm_diffusion --num_samples=16 --out=out   (from noise)
  python -m foley_jax.sample silent.mp4 --model=runs/mm_diffusion --method=gradient
  python -m foley_jax.sample music.wav --model=runs/mm_diffusion --super_resolution=runs/sr

For every input NAME it writes out/NAME.mp4 (picture with sound), NAME.wav, NAME.png (the mel, or
frames and waveform) and an entry in out/scores.json; the second best of --keep_best is
NAME.best2.mp4, and so on; MM-Diffusion adds contact_sheet.png. Run it again after a stop: finished
inputs are skipped, and keep their names. Inputs that fail are listed at the end, each with its
reason, and the exit code is 1; {reasons.SWITCH}=1 in the environment also shows where each failed.
Folders are searched with all that links in them lead to; names with a leading dot and --out are
passed over, and one line says so. Of equal names the later ones get a number (NAME_2).

{compile_cache.HELP}""",
    )
    p.add_argument("inputs", nargs="*", help="videos, or for MM-Diffusion sounds, or folders")
    p.add_argument(
        "--model",
        required=True,
        help="workdir of an ldm or mm_diffusion run (runs/ldm), folder of official files, "
        "official file, or hub:OWNER/NAME",
    )
    p.add_argument("--out", default="out", help="output folder (default: out)")
    flags.of_both(p)
    p.add_argument(
        "--num_samples",
        type=limits.count_argument,
        default=1,
        help="sounds made per video, or clips from noise",
    )
    p.add_argument(
        "--group",
        type=limits.count_argument,
        default=16,
        help="inputs per device batch (default: 16)",
    )
    of_foley = p.add_argument_group("Diff-Foley (sound for videos)")
    flags.of_foley(of_foley)
    of_foley.add_argument("--keep_best", type=int, default=1, help="how many of them are saved")
    about = "no generation: each video's own sound through autoencoder and vocoder"
    of_foley.add_argument("--reconstruct", action="store_true", help=about)
    flags.of_sounding(p.add_argument_group("MM-Diffusion (sounding videos)"))
    return p


def _foley_job(
    args: argparse.Namespace, settings: pipeline.Settings, foley: Foley, networks: dict
) -> tuple[jobs.Job, list]:
    foley.model.check(settings)
    foley.model.scratch = Path(args.out)
    videos = jobs.find_inputs(args.inputs, args.out)
    if args.reconstruct:
        return ReconstructJob(foley), videos
    return GenerateJob(foley, settings, networks), videos


def _sounding_job(
    args: argparse.Namespace,
    settings: sounding_video.Settings,
    av: sounding_video.SoundingVideo,
    networks: dict,
) -> tuple[jobs.Job, list]:
    av.model.check(settings)
    task, paths = sounding_video.work(args.inputs, args.num_samples, args.out)
    return sounding_video.Job(av, task, settings, networks), paths


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = parser().parse_args(argv)
    networks = {name: getattr(args, name) for name in NETWORKS}
    compile_cache.turn_on()
    try:
        is_foley = not loading.makes_sounding_video(args.model)
        kind = pipeline.Settings if is_foley else sounding_video.Settings
        settings = flags.settings(kind, args)  # before anything is loaded
        model = load(args.model, devices=args.devices, **networks)
        networks = {"model": args.model, **networks}
        make_job = _foley_job if is_foley else _sounding_job
        job, paths = make_job(args, settings, model, networks)
        unit, out = "video" if is_foley else "clip", Path(args.out)
        shelf = jobs.Folder(out, job.settings())
        with tqdm.tqdm(total=len(paths), unit=unit, desc="sample") as bar:
            run = jobs.Batch(job, paths, shelf, group=args.group, progress=bar.update)
            failures = run.run()
        if not is_foley and job.rows:
            plots.save_contact_sheet(out / "contact_sheet.png", job.rows)
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {reasons.of(error)}", file=sys.stderr)
        return 1
    print(f"{len(paths) - len(failures)} of {len(paths)} {unit}s done, in {args.out}")
    for path, reason in failures.items():
        print(names.shown(f"failed: {path}: {reason}"), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
