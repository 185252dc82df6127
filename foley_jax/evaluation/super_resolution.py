"""Protocol `super-resolution`: frames that a network enlarged beside bicubic ones and true ones.

    python -m foley_jax.evaluation.super_resolution demo/mm_shards_large \\
        --model=demo/runs/mm_large --out=demo/mm_report/large

The middle frame of every clip of a split is made small, as in the network's training but without
noise and JPEG (--worse: with them), and enlarged both ways. PSNR in dB of 8-bit frames, mean over
clips with 95 % bootstrap intervals, the gain of the network over bicubic clip by clip. A network
that adds detail at random may look sharper and have the lower PSNR: look at sheet.png as well.
Written into --out: metrics.json, table.md, sheet.png.
"""

import argparse
from collections.abc import Mapping, Sequence
import functools
import json
import math
from pathlib import Path
import sys

import jax
import numpy as np
from PIL import Image
import tqdm

from foley_jax.data import pipeline
from foley_jax.evaluation import tables
from foley_jax.evaluation.statistics import bootstrap
from foley_jax.inference import networks
from foley_jax.media import file_arguments, fitting, images, pixels
from foley_jax.mm_diffusion.sampling import settings as settings_lib
from foley_jax.mm_diffusion.sampling import upscaling
from foley_jax.runtime import limits

STAGE = "mm_super_resolution"
BATCH = 8  # frames enlarged together
SHEET_CLIPS = 8
WAYS = ("bicubic", "network")
COLUMNS = {"PSNR, dB": "psnr_db", "95 % from": "psnr_low", "to": "psnr_high"}
MORE_COLUMNS = {"over bicubic, dB": "gain_db", "from": "gain_low", "to ": "gain_high"}


def psnr(made: np.ndarray, true: np.ndarray) -> float:
    """Peak signal-to-noise ratio of 8-bit images in dB; infinite where they are equal."""
    error = np.mean(np.square(made.astype(np.float64) - true.astype(np.float64)))
    return 10.0 * math.log10(255.0**2 / error) if error else math.inf


def bicubic(low_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A small frame, 0 to 255, enlarged by Pillow's kernel: uint8 [H, W, 3]."""
    low = np.clip(np.rint(low_HWC), 0, 255).astype(np.uint8)
    return np.asarray(fitting.resize(low, size, cubic=True, antialias=False), np.uint8)


def held_out(part: networks.Part, folder: str, split: str, most: int) -> list[Mapping]:
    """Small and large middle frames of a split's clips, always the same ones.

    Raises:
      ValueError: no such shards, or frames of another size.
    """
    source = pipeline.open_source(folder, split, part.task.video)
    transform = part.task.transform(train=False)
    numbers = range(min(most, len(source)))
    return [transform(source, i, np.random.default_rng((0, i))) for i in numbers]


def enlarge(part: networks.Part, lows: np.ndarray, num_steps: int) -> np.ndarray:
    """Small frames [N, h, w, 3], 0 to 255 -> uint8 [N, H, W, 3], as sampling enlarges clips."""
    config = part.config
    run = functools.partial(
        upscaling.upscale,
        factor=config.video.height // config.data.degradation.height,
        num_steps=num_steps,
        frames_at_once=BATCH,
        schedule=part.task.schedule,
        prediction=part.task.prediction,
    )
    program = part.network.jit(run)
    made = []
    for at in tqdm.trange(0, len(lows), BATCH, desc="enlarged", unit="batch", leave=False):
        index = np.minimum(np.arange(at, at + BATCH), len(lows) - 1)  # the last one again
        low = lows[index][:, None] / np.float32(127.5) - np.float32(1.0)
        made.append(pixels.to_uint8(np.asarray(program(low, jax.random.key(at)))[:, 0]))
    return np.concatenate(made)[: len(lows)]


def figures(made: np.ndarray, plain: np.ndarray, true: np.ndarray) -> dict[str, dict]:
    """PSNR of both ways over clips, and how much better the network is."""
    values = [np.array([psnr(*pair) for pair in zip(way, true)]) for way in (plain, made)]
    rows = {name: {"clips": len(true)} | _mean("psnr", of) for name, of in zip(WAYS, values)}
    rows["network"] |= _mean("gain", values[1] - values[0])
    return rows


def _mean(name: str, values_N: np.ndarray) -> dict[str, float]:
    """Mean of decibels over clips, and its interval."""
    found = bootstrap.interval(lambda pick: float(values_N[pick].mean()), len(values_N))
    return {f"{name}_db": found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def sheet(lows: np.ndarray, plain: np.ndarray, made: np.ndarray, true: np.ndarray) -> np.ndarray:
    """A row of four for each of the first clips: small, bicubic, network, true."""
    rows = []
    for low, *enlarged, right in list(zip(lows, plain, made, true))[:SHEET_CLIPS]:
        factor = len(right) // len(low)
        small = np.clip(np.rint(low), 0, 255).astype(np.uint8)
        small = small.repeat(factor, axis=0).repeat(factor, axis=1)
        texts = [f"{name} {psnr(image, right):.1f} dB" for name, image in zip(WAYS, enlarged)]
        shown = zip(("small", *texts, "true"), (small, *enlarged, right))
        rows.append(images.beside([images.caption(text, image) for text, image in shown]))
    return images.below(rows)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command."""
    p = file_arguments.Parser(
        prog="python -m foley_jax.evaluation.super_resolution", description=__doc__
    )
    p.add_argument("shards", help="held-out clips at the large size")
    p.add_argument("--model", required=True, help=f"run of {STAGE}, or official file")
    p.add_argument("--split", default="test", help="of the shards (default: test)")
    p.add_argument("--out", type=Path, required=True, help="where the report goes")
    p.add_argument("--clips", type=limits.count_argument, default=64, help="at most (default: 64)")
    p.add_argument(
        "--steps", type=limits.count_argument, default=settings_lib.UPSCALING_STEPS, help="of DDIM"
    )
    p.add_argument("--worse", action="store_true", help="small frames with noise and JPEG")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        part = networks.part(args.model, STAGE, None)
        chance = {} if args.worse else {"noise_probability": 0.0, "jpeg_probability": 0.0}
        part.task.config.data.degradation.update(chance)
        examples = held_out(part, args.shards, args.split, args.clips)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    lows, true = (np.stack([e[name] for e in examples]) for name in ("low_BHWC", "high_BHWC"))
    plain = np.stack([bicubic(low, true.shape[1:3]) for low in lows])
    made = enlarge(part, lows, args.steps)
    rows = figures(made, plain, true)
    args.out.mkdir(parents=True, exist_ok=True)
    about = {"model": args.model, "steps": args.steps, "worse": args.worse, "split": args.split}
    (args.out / "metrics.json").write_text(json.dumps({**about, **rows}, indent=1))
    table = tables.markdown_table("protocol `super-resolution`", rows, COLUMNS, MORE_COLUMNS)
    (args.out / "table.md").write_text(table)
    Image.fromarray(sheet(lows, plain, made, true)).save(args.out / "sheet.png")
    print(table)
    print(f"sheet: {args.out / 'sheet.png'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
