"""Windows of several clips side by side on one canvas, the tape; and how many at once.

It holds the clips of a device batch one after the other, each in a whole number of blocks of one
window's width. Windows never reach across two clips, so a clip does not depend on its neighbours
on the tape.
Axis letters: N windows, V columns of one, K blocks.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from foley_jax.diffusion import multidiffusion
from foley_jax.diffusion import windows as windows_lib


class Tape(NamedTuple):
    """Where everything lies.

    Attributes:
      cover: windows on the tape, padded so that few shapes occur.
      starts: first column of every clip.
      blocks: how many each clip has.
      batch: windows that a device batch holds.
      size: N, windows and blocks with the padding.
    """

    cover: multidiffusion.WindowLayout
    starts: list[int]
    blocks: list[int]
    batch: int
    size: int


def num_blocks(windows: Sequence[windows_lib.Window], spec: windows_lib.WindowSpec) -> int:
    """Blocks of one window's width that hold all windows."""
    return -(-windows[-1].column // spec.num_columns) + 1


def power_of_two(count: int) -> int:
    """The smallest power of two that is not less."""
    return 1 << max(0, count - 1).bit_length()


def few_sizes(count: int) -> int:
    """A number that is not less, of few: powers of two, above 16 with three others in between."""
    step = power_of_two(count) // 8 if count > 16 else power_of_two(count)
    return -(-count // step) * step


def batch_size(count: int, most: int) -> int:
    """Windows to evaluate at once, so that few are computed in vain and few programs compiled.

    One of 1, 2, 3, 4, 6, 8, 12, ... where all fit into one batch; else `most`, or three quarters
    of it where that leaves less of the last batch empty.
    """
    if count <= most:
        above = power_of_two(count)
        return min(most, above * 3 // 4 if above >= 4 and count <= above * 3 // 4 else above)
    choices = (most, most * 3 // 4) if most % 4 == 0 else (most,)
    return min(choices, key=lambda size: (-(-count // size) * size, -size))


def divided(plans: Sequence[Sequence[windows_lib.Window]], most: int) -> Iterator[slice]:
    """Yields spans of plans in order, of at most `most` windows each, or of one plan."""
    start, count = 0, 0
    for i, plan in enumerate(plans):
        if i > start and count + len(plan) > most:
            yield slice(start, i)
            start, count = i, 0
        count += len(plan)
    if start < len(plans):
        yield slice(start, len(plans))


def lay_out(
    plans: Sequence[Sequence[windows_lib.Window]],
    spec: windows_lib.WindowSpec,
    max_batch: int,
    *,
    num_devices: int = 1,
    room: int = 0,
) -> Tape:
    """Lays the windows of clips one after the other on a tape.

    Args:
      plans: the windows of every clip.
      spec: lengths of a window.
      max_batch: most windows that one device evaluates at once.
      num_devices: that share a batch.
      room: windows to lay out the tape for, if there are fewer; padding costs less than compiling
        another program does.
    """
    starts, first, shares, blocks = [], [], [], []
    column = 0
    for plan in plans:
        columns = [w.column for w in plan]
        count = num_blocks(plan, spec)
        starts.append(column)
        blocks.append(count)
        first.extend(column + c for c in columns)
        shares.append(windows_lib.weights(columns, spec.num_columns))
        column += count * spec.num_columns
    room = max(room, len(first))
    batch = num_devices * batch_size(-(-room // num_devices), max_batch)
    # a clip never has more blocks than windows, so one size serves both
    size = batch * few_sizes(-(-room // batch))
    share_NV = np.zeros((size, spec.num_columns), np.float32)  # padding has no share
    share_NV[: len(first)] = np.concatenate(shares)
    first_N = padded(np.array(first, np.int32), size)
    cover = multidiffusion.WindowLayout(first_N, share_NV, np.int32(len(first)))
    return Tape(cover, starts, blocks, batch, size)


def padded(array: np.ndarray, size: int) -> np.ndarray:
    """Repeats the last entry until there are `size`."""
    return array[np.minimum(np.arange(size), len(array) - 1)]
