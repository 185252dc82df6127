"""The way down and the way up of a U-Net in the nesting of the official code.

Each is a list of entries and each entry a list of layers, so that conversion is renames only. What
the layers are, the network says.
"""

from collections.abc import Callable, Sequence

from flax import nnx

Level = Callable[[int, int, int], list[nnx.Module]]  # (width in, width out, downsampling so far)
Resample = Callable[[int], nnx.Module]  # width -> layer


def way_down(
    first: nnx.Module,
    first_width: int,
    level_widths: Sequence[int],
    num_res_blocks: int,
    *,
    level: Level,
    down: Resample,
) -> tuple[nnx.List, list[int]]:
    """The first layer, then `num_res_blocks` entries a level with a `down` between levels.

    Returns:
      The entries, and the width of each.
    Source: openaimodel.UNetModel `input_blocks`.
    """
    ch, entries, widths = first_width, [nnx.List([first])], [first_width]
    for i, width in enumerate(level_widths):
        for _ in range(num_res_blocks):
            entries.append(nnx.List(level(ch, width, 2**i)))
            ch = width
            widths.append(ch)
        if i < len(level_widths) - 1:
            entries.append(nnx.List([down(ch)]))
            widths.append(ch)
    return nnx.List(entries), widths


def way_up(
    widths: Sequence[int],
    level_widths: Sequence[int],
    num_res_blocks: int,
    *,
    level: Level,
    up: Resample,
) -> nnx.List:
    """One entry for each of the way down, which takes that one's output beside its input.

    Args:
      widths: of the way down; an `up` ends every level but the last.
    Source: openaimodel.UNetModel `output_blocks`.
    """
    skips, ch, entries = list(widths), widths[-1], []
    for i, width in reversed(list(enumerate(level_widths))):
        for j in range(num_res_blocks + 1):
            layers = level(ch + skips.pop(), width, 2**i)
            ch = width
            if i > 0 and j == num_res_blocks:
                layers.append(up(ch))
            entries.append(nnx.List(layers))
    return nnx.List(entries)
