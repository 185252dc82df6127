"""Sound for silent videos: the public Python API and the command line.

from foley_jax import sample
foley = sample.load("runs/ldm")
clip = foley("silent.mp4", seed=0, steps=25, guidance=4.5)
clip.save("with_sound.mp4"); clip.save("sound.wav"); clip.plot("mel.png")

python -m foley_jax.sample silent.mp4 folder/ --model=runs/ldm --out=out
"""

import argparse
from collections.abc import Sequence
import dataclasses
import os
from pathlib import Path
import sys

import jax
import numpy as np
import tqdm

from foley_jax import batch
from foley_jax.diff_foley import pipeline
from foley_jax.media import audio as audio_io
from foley_jax.media import plots
from foley_jax.media import video as video_io
from foley_jax.training import checkpoint
from foley_jax.training import task as task_lib


@dataclasses.dataclass(frozen=True)
class Clip:
    """Generated sound for one video.

    Attributes:
      audio: float32 [samples] in about [-1, 1]; `sample_rate` in Hz.
      mel_FT: log-mel in [0, 1] that the sound was made from; `frame_s` seconds a frame.
      scores: name -> number, e.g. `cavp_similarity` of sound and picture.
      video: path of the video the sound belongs to.
    """

    audio: np.ndarray
    sample_rate: int
    mel_FT: np.ndarray
    frame_s: float
    scores: dict[str, float]
    video: Path

    def save(self, path: str | os.PathLike) -> None:
        """Writes `.wav`, or a video file with the original picture and this sound.

        Raises:
          ValueError: the suffix is neither `.wav` nor a video container, or the sound is not
            finite.
        """
        path = Path(path)
        if not np.isfinite(self.audio).all():
            raise ValueError(
                f"the sound made for {self.video} is not finite; check the model's training, or "
                "use --dtype=float32"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".wav":
            audio_io.write_wav(path, self.audio, self.sample_rate)
        elif path.suffix in batch.VIDEO_SUFFIXES:
            video_io.mux(self.video, self.audio, self.sample_rate, path)
        else:
            raise ValueError(f"cannot save a clip as {path.suffix!r}; use .wav or .mp4")

    def plot(self, path: str | os.PathLike) -> None:
        """Draws the log-mel over time and frequency into a PNG."""
        plots.save_mel(path, self.mel_FT, self.frame_s, title=self.video.name)


class Foley:
    """A loaded Diff-Foley model; call it with a video."""

    def __init__(self, model: pipeline.DiffFoley, run_dir: Path):
        self.model, self.run_dir = model, run_dir

    def __call__(
        self,
        video: str | os.PathLike,
        *,
        seed: int = 0,
        steps: int = 25,
        guidance: float = 4.5,
        num_samples: int = 1,
        keep_best: int = 1,
        preset: str = "default",
    ) -> Clip | list[Clip]:
        """Makes sound for one video of any length, frame rate and size.

        Args:
          video: path of a file with a picture stream; its own sound, if any, is not read.
          seed: same seed, video name and settings give the same sound.
          steps: DPM-Solver++(2M) steps.
          guidance: classifier-free guidance scale; 1 is no guidance.
          num_samples: how many sounds to make.
          keep_best: how many to return, best CAVP similarity first; one is returned as a
            Clip, several as a list.
          preset: "default" (trained null condition) or "official" (the notebook's zero one).
        Raises:
          foley_jax.media.video.MediaError: the file has no readable picture.
          ValueError: a setting is out of range.
        """
        settings = pipeline.Settings(
            seed=seed, steps=steps, guidance=guidance, num_samples=num_samples, preset=preset
        )
        if not 1 <= keep_best <= num_samples:
            raise ValueError(f"keep_best is {keep_best}, expected 1 to num_samples={num_samples}")
        frames = self.read(video)
        results = self.model.generate([frames], settings)[0]
        clips = [self.clip(video, r) for r in results[:keep_best]]
        return clips[0] if keep_best == 1 else clips

    def read(self, video: str | os.PathLike) -> pipeline.Source:
        """Decodes what the model needs of a video (frames at its fps and size, duration)."""
        spec = self.model.video
        frames_THWC = video_io.read_frames(video, spec)
        return pipeline.Source(Path(video), frames_THWC, video_io.probe(video).duration_s)

    def read_sound(self, video: str | os.PathLike) -> pipeline.Sound:
        """Decodes a video's own sound at the model's rate."""
        return pipeline.Sound(Path(video), audio_io.load(video, self.model.audio.sample_rate_hz))

    def clip(self, video: str | os.PathLike, result: pipeline.Result) -> Clip:
        """Wraps a generated result with the file it belongs to."""
        audio = self.model.audio
        return Clip(
            audio=result.audio,
            sample_rate=audio.sample_rate_hz,
            mel_FT=result.mel_FT,
            frame_s=audio.frame_s,
            scores=result.scores,
            video=Path(video),
        )


def _resolve_beside(run_dir: Path, target: str) -> Path:
    """A run named in a config: as written, or next to the run that names it."""
    for candidate in (Path(target), run_dir.parent / Path(target).name):
        if (candidate / "config.json").exists():
            return candidate
    raise FileNotFoundError(
        f"{run_dir} was trained on features of {target!r}, which is neither there nor at "
        f"{run_dir.parent / Path(target).name}; give its folder with --cavp=DIR"
    )


def load(model: str | os.PathLike, *, cavp: str | None = None, dtype: str | None = None) -> Foley:
    """Loads a trained or converted model.

    Args:
      model: workdir of a `ldm` run (its newest checkpoint; EMA parameters if there are any).
      cavp: workdir of the CAVP run whose features the model was trained on; by default the one
        that the run's config names.
      dtype: compute type, "float32" or "bfloat16"; by default the run's own on accelerators
        and float32 on CPU.
    Raises:
      FileNotFoundError: no checkpoint at `model` or `cavp`; the message says how to make one.
    """
    run_dir = Path(model)
    if str(model).startswith("hub:"):
        raise ValueError(
            f"{model}: downloading from a model hub is not supported; download the files and "
            "convert them with `python -m foley_jax.convert`"
        )
    config, *ldm_state = checkpoint.load_model_state(run_dir)
    if config.task != "ldm":
        raise ValueError(f"{run_dir} holds a {config.task!r} run; sampling wants an 'ldm' run")
    cavp_dir = Path(cavp) if cavp else _resolve_beside(run_dir, config.cavp)
    cavp_config, *cavp_state = checkpoint.load_model_state(cavp_dir)
    for c in (config, cavp_config):
        if dtype or jax.default_backend() == "cpu":
            c.dtype = dtype or "float32"
    task = task_lib.resolve(config)
    return Foley(
        pipeline.DiffFoley(
            ldm=pipeline.Network.restore(task, *ldm_state),
            cavp=pipeline.Network.restore(task_lib.resolve(cavp_config), *cavp_state),
            config=config,
            cavp_config=cavp_config,
            schedule=task.schedule,
        ),
        run_dir,
    )


# ---- command line -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class GenerateJob:
    """Generated sound for each video."""

    foley: Foley
    options: pipeline.Settings

    def read(self, video: Path) -> pipeline.Source:
        return self.foley.read(video)

    def make(self, sources: Sequence[pipeline.Source]) -> list[Clip]:
        results = self.foley.model.generate(sources, self.options)
        return [self.foley.clip(s.path, r[0]) for s, r in zip(sources, results)]

    def settings(self) -> dict:
        return {**dataclasses.asdict(self.options), "model": str(self.foley.run_dir)}


@dataclasses.dataclass(frozen=True)
class ReconstructJob:
    """Each video's own sound through autoencoder and vocoder: the ceiling of generation."""

    foley: Foley

    def read(self, video: Path) -> pipeline.Sound:
        return self.foley.read_sound(video)

    def make(self, sources: Sequence[pipeline.Sound]) -> list[Clip]:
        results = self.foley.model.reconstruct(sources)
        return [self.foley.clip(s.path, r) for s, r in zip(sources, results)]

    def settings(self) -> dict:
        return {"reconstruct": True, "model": str(self.foley.run_dir)}


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m foley_jax.sample",
        description="Puts generated sound to silent videos (Diff-Foley).",
        epilog="""examples:
  python -m foley_jax.sample silent.mp4 --model=runs/ldm --out=out
  python -m foley_jax.sample my_videos/ --model=runs/ldm --out=out --num_samples=4

For every video NAME it writes out/NAME.mp4 (picture with the new sound), NAME.wav, NAME.png
(the mel) and an entry in out/scores.json. Run it again after a stop: finished videos are
skipped. Videos that fail are listed at the end and the exit code is 1.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("inputs", nargs="+", help="video files or folders of them")
    p.add_argument("--model", required=True, help="workdir of an ldm run, e.g. runs/ldm")
    p.add_argument("--cavp", help="workdir of the CAVP run; default: the one the model names")
    p.add_argument("--out", default="out", help="output folder (default: out)")
    p.add_argument("--steps", type=int, default=25, help="DPM-Solver++ steps (default: 25)")
    p.add_argument(
        "--guidance", type=float, default=4.5, help="classifier-free guidance scale (default: 4.5)"
    )
    p.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    p.add_argument("--num_samples", type=int, default=1, help="sounds per video; the best is kept")
    p.add_argument(
        "--preset",
        choices=("default", "official"),
        default="default",
        help="official: reproduce the published notebook's zero null condition",
    )
    p.add_argument("--dtype", choices=("float32", "bfloat16"), help="compute type")
    p.add_argument("--group", type=int, default=16, help="videos per device batch (default: 16)")
    p.add_argument(
        "--reconstruct",
        action="store_true",
        help="no generation: each video's own sound through autoencoder and vocoder",
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = parser().parse_args(argv)
    videos = batch.find_videos(args.inputs)
    if not videos:
        print(f"no video files found in {', '.join(args.inputs)}", file=sys.stderr)
        return 1
    try:
        foley = load(args.model, cavp=args.cavp, dtype=args.dtype)
        settings = pipeline.Settings(
            seed=args.seed,
            steps=args.steps,
            guidance=args.guidance,
            num_samples=args.num_samples,
            preset=args.preset,
        )
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    job = ReconstructJob(foley) if args.reconstruct else GenerateJob(foley, settings)
    with tqdm.tqdm(total=len(videos), unit="video", desc="sample") as bar:
        run = batch.Batch(job, videos, Path(args.out), group=args.group, progress=bar.update)
        failures = run.run()
    print(f"{len(videos) - len(failures)} of {len(videos)} videos done, in {args.out}")
    for path, reason in failures.items():
        print(f"failed: {path}: {reason}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
