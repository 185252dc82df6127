"""Audio for silent videos, and sounding videos: the public Python API and the command line.

from foley_jax import sample
foley = sample.load("embedded")  # the package's own; a run, official files, "hub:OWNER/NAME"
clip = foley("silent.mp4", seed=0, steps=25, guidance=4.5, alignment=50.0, num_samples=4)
clip.save("with_sound.mp4"); clip.save("sound.wav"); clip.plot("mel.png")

av = sample.load("runs/mm_diffusion")  # MM-Diffusion: see `foley_jax.inference.sounding_video`
av.generate(num_samples=4); av.audio_for("silent.mp4"); av.video_for("music.wav")

foley = sample.load("official_mmaudio/")  # MMAudio: see `foley_jax.inference.text_foley`
foley("silent.mp4", text="a dog barks", negative_text="music"); foley(text="waves on a beach")

python -m foley_jax.sample silent.mp4 folder/ --model=runs/ldm --out=out
python -m foley_jax.sample --model=runs/mm_diffusion --num_samples=16 --out=out
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys
from typing import Any

import tqdm

from foley_jax.inference import flags, jobs
from foley_jax.inference import load as loading
from foley_jax.media import file_arguments, names
from foley_jax.runtime import compile_cache, limits, reasons

load = loading.any_system


def __getattr__(name: str) -> Any:
    """Foley, TextFoley, Clip and SoundingVideo; a system is imported when it is wanted."""
    if name in ("Foley", "Clip"):
        from foley_jax.inference import foley

        return getattr(foley, name)
    if name == "TextFoley":
        from foley_jax.inference import text_foley

        return text_foley.TextFoley
    if name == "SoundingVideo":
        from foley_jax.inference import sounding_video

        return sounding_video.SoundingVideo
    raise AttributeError(f"module 'foley_jax.sample' has no {name!r}")


def parser() -> argparse.ArgumentParser:
    p = file_arguments.Parser(
        prog="python -m foley_jax.sample",
        description="Puts generated audio to silent videos (Diff-Foley; MMAudio, also by text), or "
        "makes sounding videos, and each from the other (MM-Diffusion).",
        epilog=f"""examples:
  python -m foley_jax.sample silent.mp4 --model=embedded --out=out   (drawn scenes: launch/demo.sh)
  python -m foley_jax.sample silent.mp4 --model=runs/ldm --out=out
  python -m foley_jax.sample my_videos/ --model=runs/ldm --classifier=runs/alignment --out=out
  python -m foley_jax.sample silent.mp4 --model=official_files/ --num_samples=4 --keep_best=2
  python -m foley_jax.sample silent.mp4 --model=official_mmaudio/ --text="a dog barks"
  python -m foley_jax.sample --model=official_mmaudio/ --text="waves on a beach" --duration=12
  python -m foley_jax.sample --model=runs/mm_diffusion --num_samples=16 --out=out   (from noise)
  python -m foley_jax.sample silent.mp4 --model=runs/mm_diffusion --method=gradient
  python -m foley_jax.sample music.wav --model=runs/mm_diffusion --super_resolution=runs/sr

For every input NAME it writes out/NAME.mp4 (video with audio), NAME.wav, NAME.png (the mel, or
frames and waveform) and an entry in out/scores.json; the second best of --keep_best is
NAME.best2.mp4, and so on; MM-Diffusion adds contact_sheet.png. Run it again after a stop: finished
inputs are skipped, and keep their names. Inputs that fail are listed at the end, each with its
reason, and the exit code is 1; {reasons.SWITCH}=1 in the environment also shows where each failed.
Folders are searched with all that links in them lead to; names with a leading dot and --out are
passed over, and one line says so. Of equal names the later ones get a number (NAME_2).

{compile_cache.HELP}""",
    )
    p.add_argument("inputs", nargs="*", help="videos, or for MM-Diffusion audio clips, or folders")
    p.add_argument(
        "--model",
        required=True,
        help="workdir of an ldm or mm_diffusion run (runs/ldm), folder of official files, "
        "official file, hub:OWNER/NAME, or the package's own: embedded, embedded:4_steps",
    )
    p.add_argument("--out", default="out", help="output folder (default: out)")
    flags.of_both(p)
    p.add_argument(
        "--num_samples",
        type=limits.count_argument,
        default=1,
        help="audio clips made per video, or clips from noise",
    )
    p.add_argument(
        "--group",
        type=limits.count_argument,
        default=16,
        help="inputs per device batch (default: 16)",
    )
    of_foley = p.add_argument_group("Diff-Foley (audio for videos; MMAudio knows --guidance)")
    flags.of_foley(of_foley)
    of_foley.add_argument("--keep_best", type=int, default=1, help="how many of them are saved")
    about = "no generation: each video's own audio through autoencoder and vocoder"
    of_foley.add_argument("--reconstruct", action="store_true", help=about)
    of_edits = p.add_argument_group("editing the videos' own audio (Diff-Foley and MMAudio)")
    about = "only these seconds are made, all else of each video's own audio is kept"
    of_edits.add_argument(
        "--regenerate", type=limits.span_argument, metavar="START:STOP", help=about
    )
    of_edits.add_argument(
        "--vary",
        type=limits.number_argument,
        default=1.0,
        help="below 1, begin with each video's own audio, noised to this share of the steps: the "
        "less, the nearer to it (default: 1, all is made anew)",
    )
    flags.of_text_foley(p.add_argument_group("MMAudio (audio for videos and text)"))
    flags.of_sounding(p.add_argument_group("MM-Diffusion (sounding videos)"))
    return p


def _foley_job(args: argparse.Namespace, networks: dict) -> tuple[jobs.Job, list]:
    from foley_jax.diff_foley.sampling import pipeline
    from foley_jax.inference import foley

    settings = flags.settings(flags.foley_settings.Settings, args)  # before anything is loaded
    loading.check_steps(args.model, settings.steps)
    model = load(args.model, devices=args.devices, **networks)
    model.model.check(settings)
    model = model.within(pipeline.Run(scratch=Path(args.out)))
    videos = jobs.find_inputs(args.inputs, args.out)
    if args.reconstruct:
        return foley.ReconstructJob(model), videos
    origin = {"model": args.model, **networks}
    return foley.GenerateJob(model, settings, origin, args.regenerate), videos


def _text_job(args: argparse.Namespace, networks: dict) -> tuple[jobs.Job, list]:
    from foley_jax.inference import text_foley
    from foley_jax.mmaudio.sampling import pipeline

    settings = flags.settings(pipeline.Settings, args)  # before anything is loaded
    has_video, paths = text_foley.work(args.inputs, args.text, args.out)
    model = load(args.model, devices=args.devices, **networks)
    model.model.check(settings)
    model = model.within(pipeline.Run(scratch=Path(args.out)))
    origin = {"model": args.model, **networks}
    return text_foley.Job(model, settings, has_video, origin, args.regenerate), paths


def _sounding_job(args: argparse.Namespace, networks: dict) -> tuple[jobs.Job, list]:
    from foley_jax.inference import sounding_video

    settings = flags.settings(flags.sounding_settings.Settings, args)
    av = load(args.model, devices=args.devices, **networks)
    av.model.check(settings)
    task, paths = sounding_video.work(args.inputs, args.num_samples, args.out)
    return sounding_video.Job(av, task, settings, {"model": args.model, **networks}), paths


JOBS = {"diff_foley": _foley_job, "mmaudio": _text_job, "mm_diffusion": _sounding_job}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = parser().parse_args(argv)
    networks = {name: getattr(args, name) for name in loading.NETWORKS}
    compile_cache.turn_on()
    try:
        system = loading.system_of(args.model)
        job, paths = JOBS[system](args, networks)
        unit, out = "clip" if system == "mm_diffusion" else "video", Path(args.out)
        store = jobs.Folder(out, job.settings())
        with tqdm.tqdm(total=len(paths), unit=unit, desc="sample") as bar:
            run = jobs.Batch(job, paths, store, group=args.group, progress=bar.update)
            failures = run.run()
        if system == "mm_diffusion" and job.rows:
            from foley_jax.media import plots

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
