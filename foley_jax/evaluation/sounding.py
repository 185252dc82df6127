"""Protocol `sounding`: do clips generated with video and audio agree with themselves?

    python -m foley_jax.evaluation.sounding --videos=demo/videos --out=demo/report \\
        --system=generated=demo/out/seed0 --system=generated=demo/out/seed1

Every system is a folder of `NAME.mp4` + `NAME.wav`; give a system's name again for its other
seeds: their mean and spread make one row. Nobody knows what should be heard in a generated clip,
so one detector looks for impacts in the image, another listens for onsets in the audio, and
onsets are matched one-to-one with impacts. The same audio clips paired with the images of other
clips, and held-out true videos cut to the same length, stand beside every result: a score means
something only between these two. How good the eye itself is stands in a second table.

The eye is trained on `VIDEOS/train` (a minute on one core; kept in the report folder) and its
threshold fixed there before it sees a generated clip. Everything is seen at 10 fps and 32x32
pixels and heard at 8 kHz, true videos as well. Nothing counts after the time of the last frame,
where nothing can be seen any more.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
from pathlib import Path
import re
import sys

import numpy as np
import tqdm

from foley_jax.evaluation import (
    embedded,
    impact_training,
    impacts,
    notes,
    onsets,
    run_card,
    seeds,
    tables,
)
from foley_jax.evaluation.statistics import bootstrap, pairs, remarks, scores
from foley_jax.media import audio as audio_io
from foley_jax.media import file_arguments, plots
from foley_jax.media import video as video_io

RATE_HZ = 8000  # of the generated audio; what is above 4 kHz must not help the true audio
SHEET_CLIPS = 12
TRUE = "true videos"
COLUMNS = {
    "F1 @100 ms": "f1@100ms",
    "95 % interval": None,
    "shuffled": "shuffled_f1@100ms",
    "F1 @150 ms": "f1@150ms",
    "shuffled ": "shuffled_f1@150ms",
    "onsets seen": "precision",
    "impacts heard": "recall",
    "impacts": "events",
    "onsets": "heard",
    "clips without impact": "clips_without_impact",
}
MORE_COLUMNS = {"seeds": "seeds", "F1 spread": "f1@100ms_std"}
EYE_COLUMNS = {
    "F1 @100 ms": "f1@100ms",
    "95 % interval": None,
    "precision": "precision",
    "recall": "recall",
    "true impacts": "events",
    "found": "heard",
}


@dataclasses.dataclass(frozen=True)
class Clip:
    """One short clip as it is judged.

    Attributes:
      frames_THWC: uint8, at the detector's rate and size.
      audio_L: float32 [L] at `RATE_HZ`, as long as the frames.
      impacts_s, onsets_s: what is seen and what is heard, seconds.
    """

    name: str
    frames_THWC: np.ndarray
    audio_L: np.ndarray
    impacts_s: np.ndarray
    onsets_s: np.ndarray


def judge(
    name: str, frames_THWC: np.ndarray, audio_L: np.ndarray, detector: impacts.Detector
) -> Clip:
    """Looks at the frames and listens to the audio, float [L] at `RATE_HZ`, of one clip."""
    fps = detector.settings.fps
    length = round(len(frames_THWC) / fps * RATE_HZ)
    audio_L = np.pad(audio_L[:length], (0, max(0, length - len(audio_L))))
    heard = audio_io.resample(audio_L, RATE_HZ, embedded.AUDIO.sample_rate_hz)
    onsets_s = embedded.hear(heard, onsets.Detector()).onsets_s
    onsets_s = onsets_s[onsets_s <= (len(frames_THWC) - 1) / fps]
    return Clip(name, frames_THWC, audio_L, detector(frames_THWC), onsets_s)


def find_clips(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Video and audio of every clip of a system, by name; see `run_card.find_items`.

    Raises:
      FileNotFoundError: none, or images without audio or audio clips without image.
    """
    images, audio_clips = (run_card.find_items(folder, (kind,)) for kind in (".mp4", ".wav"))
    lonely = [
        str(path.with_suffix(other))
        for these, those, other in ((images, audio_clips, ".wav"), (audio_clips, images, ".mp4"))
        for name, path in these.items()
        if name not in those
    ]
    if lonely:
        raise FileNotFoundError(f"{len(lonely)} files missing beside their twins: {lonely[:3]} ...")
    if not images:
        raise FileNotFoundError(f"{folder} holds no clips (NAME.mp4 beside NAME.wav)")
    return {name: (image, audio_clips[name]) for name, image in images.items()}


def read_system(
    clips: Mapping[str, tuple[Path, Path]], detector: impacts.Detector, num_frames: int, what: str
) -> list[Clip]:
    """Judges the first `num_frames` frames and their audio of every generated clip.

    Raises:
      ValueError: a clip is shorter; it would not be comparable.
    """
    judged = []
    bar = tqdm.tqdm(clips.items(), desc=what, unit="clip", leave=False)
    for name, (path, waveform) in bar:
        frames = video_io.read_frames(path, detector.settings.video)
        if len(frames) < num_frames:
            raise ValueError(
                f"{path} has {len(frames)} frames at {detector.settings.fps:g} fps, expected "
                f"{num_frames}; give --frames={len(frames)} to judge every clip by so many"
            )
        audio_L = audio_io.load(waveform, RATE_HZ)
        judged.append(judge(name, frames[:num_frames], audio_L, detector))
    return judged


def read_true(
    truth: Sequence[embedded.Truth], detector: impacts.Detector, num_frames: int
) -> tuple[list[Clip], list[np.ndarray]]:
    """Judges true videos cut to the length of generated clips.

    Returns:
      The clips, and the true times of each one's events that can be seen.
    """
    fps = detector.settings.fps
    clips, true_s = [], []
    for video in tqdm.tqdm(truth, desc=TRUE, unit="video", leave=False):
        frames = video_io.read_frames(video.video, detector.settings.video)
        audio_L = audio_io.load(video.video, RATE_HZ)
        for window in impacts.windows(len(frames), num_frames):
            start = round(window.start / fps * RATE_HZ)
            name = f"{video.name} from {window.start / fps:.1f} s"
            clips.append(judge(name, frames[window], audio_L[start:], detector))
            true_s.append(impact_training.seen_times(video.times_s, window, fps))
    if not clips:
        raise ValueError(f"no test video is as long as {num_frames} frames at {fps:g} fps")
    return clips, true_s


def agreement(clips: Sequence[Clip]) -> dict[str, float]:
    """Figures of heard onsets against seen impacts, and how many clips show no impact."""
    found = scores.figures([c.onsets_s for c in clips], [c.impacts_s for c in clips])
    found["clips_without_impact"] = sum(not len(c.impacts_s) for c in clips)
    return found


def eye_figures(
    clips: Sequence[Clip], true_s: Sequence[np.ndarray], detector: impacts.Detector
) -> dict[str, dict[str, float]]:
    """The detector of impacts against the truth: as they are, and with degraded images."""
    hazy = []
    for seed, clip in enumerate(clips):
        triple = impacts.triples(clip.frames_THWC, detector.settings.size)
        x = impact_training.degraded(triple, seed=seed)
        hazy.append(detector.times(detector.answers(x)))
    return {
        TRUE: scores.figures([c.impacts_s for c in clips], true_s),
        f"{TRUE}, images degraded": scores.figures(hazy, true_s),
    }


def prepare_detector(
    train: Sequence[embedded.Truth], out: Path, settings: impacts.Settings
) -> impacts.Detector:
    """The trained detector: from the report folder, or made now and kept there."""
    key = impact_training.key_of(settings, [(c.name, c.times_s) for c in train])
    path = out / f"impact_detector_{key}.npz"
    if path.exists():
        return impact_training.load(path, settings)
    examples = [
        impact_training.Example(
            clip.name,
            video_io.read_frames(clip.video, settings.video),
            clip.times_s,
            video_io.probe(clip.video).fps,
        )
        for clip in tqdm.tqdm(train, desc="train", unit="video", leave=False)
    ]
    detector = impact_training.fit(examples, settings)
    out.mkdir(parents=True, exist_ok=True)
    impact_training.save(path, detector)
    return detector


def evaluate(
    videos: Path, systems: Mapping[str, Sequence[Path]], out: Path, settings: impacts.Settings
) -> tuple[dict, dict, dict]:
    """Judges the true videos and every system (a folder per seed).

    Returns:
      {system: figures}, the figures of the eye, and {system: clips} of the first seeds.
    Raises:
      FileNotFoundError: no truth, or missing images or audio clips, before anything is trained.
      ValueError: clips too short or too few.
    """
    paths = {name: [find_clips(f) for f in folders] for name, folders in systems.items()}
    truth = {split: embedded.read_truth(videos / split) for split in ("train", "test")}
    detector = prepare_detector(truth["train"], out, settings)
    true_clips, true_s = read_true(truth["test"], detector, settings.window_frames)
    figures, shown = {TRUE: agreement(true_clips)}, {TRUE: true_clips}
    for name, folders in paths.items():
        runs = [read_system(p, detector, settings.window_frames, name) for p in folders]
        figures[name], shown[name] = seeds.merge([agreement(run) for run in runs]), runs[0]
    figures = {name: pairs.marked(row, scores.CONTRASTS) for name, row in figures.items()}
    return figures, eye_figures(true_clips, true_s, detector), shown


def write(out: Path, figures: Mapping, eye: Mapping, shown: Mapping, fps: float) -> None:
    """Writes metrics.json, table.md and a contact sheet per system; prints the tables."""
    out.mkdir(parents=True, exist_ok=True)
    beside = notes.Table(figures, COLUMNS, MORE_COLUMNS, scores.CONTRASTS)
    metrics = {
        "protocol": "sounding",
        "systems": remarks.plain(figures),
        "impact_detector": remarks.plain(eye),
        **beside.record(),
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    parts = [
        tables.markdown_table("protocol `sounding`", figures, COLUMNS, MORE_COLUMNS),
        "\n".join(f"- {line}" for line in beside.lines()),
        tables.markdown_table("impact detector against truth", eye, EYE_COLUMNS, {}),
        "\n".join(f"- {line}" for line in notes.Table(eye, EYE_COLUMNS, {}).lines()),
    ]
    text = "\n\n".join(part for part in parts if part)
    (out / "table.md").write_text(text + "\n")
    print(text)
    for name, clips in shown.items():
        path = out / f"contact_sheet_{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}.png"
        plots.save_contact_sheet(path, [_row(clip, fps) for clip in clips[:SHEET_CLIPS]])
        print(f"contact sheet: {path}")


def card(
    out: Path, videos: Path, systems: Mapping[str, Sequence[Path]], settings: impacts.Settings
) -> None:
    """Writes run_card.json: the settings, and every system's files by content."""
    entries = {}
    for name, folders in {TRUE: [videos / "test"], **systems}.items():
        entries[name] = []
        for folder in folders:
            paths = run_card.find_audio(folder)
            names = tuple(paths)
            entries[name].append(run_card.of_system(folder, paths, run_card.Account(names, names)))
    about = {
        "impact_detector": dataclasses.asdict(settings),
        "onset_detector": dataclasses.asdict(onsets.Detector()),
        "tolerances_s": scores.TOLERANCES_S,
        "span_s": scores.SPAN_S,
        "sound_rate_hz": RATE_HZ,
        "num_pairings": pairs.NUM_PAIRINGS,
        "num_bootstrap": bootstrap.NUM_RESAMPLES,
    }
    run_card.write(out / "run_card.json", "sounding", about, entries)


def _row(clip: Clip, fps: float) -> plots.SheetRow:
    marks = {"impacts seen": clip.impacts_s, "onsets heard": clip.onsets_s}
    return plots.SheetRow(clip.frames_THWC, clip.audio_L, RATE_HZ, fps, clip.name, marks)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    p = file_arguments.Parser(
        prog="python -m foley_jax.evaluation.sounding",
        description=__doc__,
    )
    p.add_argument("--videos", type=Path, required=True, help="scenes with JSON: train/ and test/")
    p.add_argument(
        "--system", action="append", default=[], metavar="NAME=DIR", help="NAME.mp4 + NAME.wav"
    )
    p.add_argument("--out", type=Path, required=True, help="where the report goes")
    p.add_argument("--frames", type=int, default=16, help="frames of a clip, at 10 fps")
    args = p.parse_args(argv)
    settings = impacts.Settings(window_frames=args.frames)
    try:
        systems = seeds.parse(args.system)
        figures, eye, shown = evaluate(args.videos, systems, args.out, settings)
    except (FileNotFoundError, ValueError, video_io.MediaError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write(args.out, figures, eye, shown, settings.fps)
    card(args.out, args.videos, systems, settings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
