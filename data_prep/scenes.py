"""Makes the embedded data set: short videos with audio whose true events are known.

    python -m data_prep.scenes VIDEOS
    python -m data_prep.scenes VIDEOS --train=400 --hard_train=60 --test=64 --hard_test=64 --seed=0

Writes VIDEOS/{train,test,test_hard}/{plain,hard,simple}_NNNNN.mp4 (H.264 128x128 at 20-24 fps,
AAC at 16 or 44.1 kHz, 10 s; training clips of all levels lie together) and beside each a .json with
its true events: time_s, material, strength; and for continuous sources their speed and pitch every
step_s. Clip N of a level and split depends on the seed and N alone, so a larger set contains the
smaller one. Files already there are kept: stop and start again at will.
"""

import json
import multiprocessing
import os
import pathlib
import time

import numpy as np
import tqdm

from data_prep import scene_audio, scene_plan
from foley_jax.media import file_arguments, video
from foley_jax.runtime import limits

DURATION_S = 10.0
SPLITS = ("train", "test")


def render(scene: scene_plan.Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws and sounds a scene.

    Returns:
      Frames [T, 128, 128, 3] uint8 (frame i shows i / fps) and audio [L] float32 in [-1, 1].
    """
    num_frames = round(scene.duration_s * scene.fps)
    size = scene_plan.SIZE
    frames_THWC = np.empty((num_frames, size, size, 3), np.uint8)
    for i in range(num_frames):
        canvas = scene.background.copy()
        for actor in scene.actors:
            actor.draw(canvas, i / scene.fps)
        x, y = _look_at(scene, i / scene.fps, rng)
        view = canvas[y : y + size, x : x + size]
        frames_THWC[i] = view * 255 + 0.5
    audio_L = scene_audio.mix(scene.audio_clips, scene.duration_s, scene.sample_rate_hz, rng)
    return frames_THWC, audio_L


def _look_at(scene: scene_plan.Scene, time_s: float, rng: np.random.Generator) -> tuple[int, int]:
    """Left and top pixel of the video in the world."""
    if scene.camera is None:
        return 0, 0
    camera, out = scene.camera, []
    for axis in range(2):
        drift = camera["amplitude"][axis] * np.sin(
            2 * np.pi * camera["rate_hz"][axis] * time_s + camera["phase"][axis]
        )
        at = scene_plan.MARGIN + drift + camera["shake"] * rng.standard_normal()
        out.append(int(np.clip(round(at), 0, 2 * scene_plan.MARGIN)))
    return out[0], out[1]


def write_scene(folder: pathlib.Path, split: str, level: str, index: int, seed: int) -> None:
    """Writes one mp4 and its JSON; both appear only when complete."""
    path = folder / split / f"{level}_{index:05d}.mp4"
    truth_path = path.with_suffix(".json")
    if path.exists() and truth_path.exists():
        return
    key = [seed, SPLITS.index(split.partition("_")[0]), scene_plan.LEVELS.index(level), index]
    rng = np.random.default_rng(key)
    scene = scene_plan.make(level, DURATION_S, rng)
    frames_THWC, audio_L = render(scene, rng)
    part = path.with_name(f".{path.stem}.part.mp4")
    video.write_video(
        part,
        frames_THWC,
        scene.fps,
        audio=audio_L,
        sample_rate_hz=scene.sample_rate_hz,
        crf=23,
        preset="ultrafast",
        threads=1,  # the clips are what runs in parallel
        aac_coder="fast",
    )
    truth = {"name": path.stem, "split": split, **scene.truth}
    truth_part = part.with_suffix(".json")
    truth_part.write_text(json.dumps(truth))
    os.replace(truth_part, truth_path)
    os.replace(part, path)


def _write_scene(job: tuple[pathlib.Path, str, str, int, int]) -> None:
    write_scene(*job)


def make_set(
    folder: pathlib.Path, counts: dict[tuple[str, str], int], seed: int, workers: int
) -> None:
    """Writes a whole set.

    Args:
      folder: where to; made if missing.
      counts: clips per (split, level).
      seed: of the whole set, 0 to 2**64 - 1.
      workers: parallel processes.
    """
    jobs, seed = [], limits.seed(seed)
    for (split, level), count in counts.items():
        if not count:
            continue
        (folder / split).mkdir(parents=True, exist_ok=True)
        jobs += [(folder, split, level, index, seed) for index in range(count)]
    bar = tqdm.tqdm(total=len(jobs), unit="clip", desc=str(folder))
    if workers <= 1:
        for job in jobs:
            _write_scene(job)
            bar.update()
    else:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for _ in pool.imap_unordered(_write_scene, jobs, chunksize=4):
                bar.update()
    bar.close()


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = file_arguments.Parser(
        prog="python -m data_prep.scenes",
        description=__doc__,
    )
    parser.add_argument("videos", type=pathlib.Path, help="folder to write")
    parser.add_argument("--train", type=int, default=400, help="plain training clips")
    parser.add_argument("--test", type=int, default=64, help="plain test clips")
    parser.add_argument("--hard_train", type=int, default=60, help="hard training clips")
    parser.add_argument("--hard_test", type=int, default=64, help="hard test clips")
    parser.add_argument("--simple_train", type=int, default=0, help="simple training clips")
    parser.add_argument("--simple_test", type=int, default=0, help="simple test clips")
    parser.add_argument("--seed", type=limits.seed_argument, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(argv)
    counts = {
        ("train", "plain"): args.train,
        ("train", "hard"): args.hard_train,
        ("test", "plain"): args.test,
        ("test_hard", "hard"): args.hard_test,
        ("train", "simple"): args.simple_train,
        ("test", "simple"): args.simple_test,
    }
    if min(counts.values()) < 0:
        parser.error("numbers of clips must not be negative")
    started = time.monotonic()
    make_set(args.videos, counts, args.seed, args.workers)
    took = time.monotonic() - started
    print(f"{sum(counts.values())} clips in {args.videos} ({took:.0f} s)")
    print(f"next: python -m data_prep.prepare {args.videos} SHARDS --size=64")


if __name__ == "__main__":
    main()
