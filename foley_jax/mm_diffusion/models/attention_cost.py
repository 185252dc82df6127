"""Costs of random-shift window attention beside attention to the whole clip.

    python -m foley_jax.mm_diffusion.models.attention_cost                 # 16, 32 and 64 frames
    python -m foley_jax.mm_diffusion.models.attention_cost --frames 16 128

Nothing is computed: both are traced for the levels of the paper's U-Net, their products counted,
and compiled for what memory they would take here. Windows cost in proportion to the number of
frames, whole clips to its square.
"""

import argparse
from collections.abc import Iterator, Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from foley_jax.mm_diffusion.models import window_attention
from foley_jax.runtime import flops


class Level(NamedTuple):
    """One level of the U-Net with cross-attention.

    Attributes:
      side: height and width of the video.
      channels: of both modalities.
      per_frame: audio samples per frame.
      window: frames of a window.
    """

    side: int
    channels: int
    per_frame: int
    window: int


HEAD_CHANNELS = 64
# 64x64 pixels, 1600 samples per frame (10 frames/s, 16 kHz). Source: multimodal_script_util.py
PAPER = (Level(32, 256, 400, 1), Level(16, 384, 100, 4), Level(8, 512, 25, 8))


class Cost(NamedTuple):
    """Costs of one cross-attention of one clip, without its norm and projections.

    Attributes:
      flops: additions and multiplications of the matrix products.
      bytes: memory beside inputs and outputs, in float32, on the backend that compiled it.
    """

    flops: float
    bytes: int


def cost(level: Level, num_frames: int, window: int) -> Cost:
    """Cost of `window_attention.cross_attention`.

    Args:
      num_frames: F of the clip.
      window: S in [1, F]; F attends to the whole clip.
    Raises:
      ValueError: a window that does not fit the clip.
    """
    attend = functools.partial(
        window_attention.cross_attention,
        window=window,
        num_heads=level.channels // HEAD_CHANNELS,
    )
    width = 3 * level.channels  # queries, keys, values
    args = (
        jax.ShapeDtypeStruct((1, num_frames, level.side**2, width), jnp.float32),
        jax.ShapeDtypeStruct((1, num_frames * level.per_frame, width), jnp.float32),
        jax.ShapeDtypeStruct((), jnp.int32),
    )
    compiled = jax.jit(attend).lower(*args).compile()
    return Cost(flops.count(attend, *args), compiled.memory_analysis().temp_size_in_bytes)


def table(frames: Sequence[int], levels: Sequence[Level] = PAPER) -> Iterator[str]:
    """Lines of a table: both costs of every level for every number of frames."""
    head = ("frames", "level", "window", "GFLOP", "whole", "ratio", "MiB", "whole")
    yield "  ".join(f"{name:>9}" for name in head)
    for num_frames in frames:
        for level in levels:
            windowed = cost(level, num_frames, level.window)
            whole = cost(level, num_frames, num_frames)
            cells = (
                f"{num_frames}",
                f"{level.side}x{level.side}",
                f"{level.window}",
                f"{windowed.flops / 1e9:.2f}",
                f"{whole.flops / 1e9:.2f}",
                f"{whole.flops / windowed.flops:.1f}",
                f"{windowed.bytes / 2**20:.0f}",
                f"{whole.bytes / 2**20:.0f}",
            )
            yield "  ".join(f"{cell:>9}" for cell in cells)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m foley_jax.mm_diffusion.models.attention_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--frames", type=int, nargs="+", default=(16, 32, 64), help="of the clips (16 32 64)"
    )
    args = parser.parse_args(argv)
    longest = max(level.window for level in PAPER)
    if min(args.frames) < longest:
        parser.error(f"--frames must be at least {longest}, the longest window")
    for line in table(args.frames):
        print(line, flush=True)


if __name__ == "__main__":
    main()
