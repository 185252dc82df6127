"""The way down and the way up of a U-Net in the nesting of the official code.

Each is a list of entries and each entry a list of layers, so that conversion is renames only. What
the layers are, the network says.
"""

from collections.abc import Sequence

from flax import nnx


class Layout:
    """Lays out what `level`, `down` and `up` make; networks inherit it and say what these are."""

    model_channels: int

    def level(self, in_ch: int, out_ch: int, downsample: int) -> list[nnx.Module]:
        """The layers of one entry, where a side is `downsample` times as small."""
        raise NotImplementedError

    def down(self, ch: int) -> nnx.Module:
        """Returns what halves the sides."""
        raise NotImplementedError

    def up(self, ch: int) -> nnx.Module:
        """Returns what doubles the sides."""
        raise NotImplementedError

    def level_widths(self, channel_mult: Sequence[int]) -> list[int]:
        """Channels of every level."""
        return [mult * self.model_channels for mult in channel_mult]

    def way_down(
        self,
        first: nnx.Module,
        first_width: int,
        channel_mult: Sequence[int],
        num_res_blocks: int,
    ) -> tuple[nnx.List, list[int]]:
        """The first layer, then `num_res_blocks` entries a level with a `down` between levels.

        Returns:
          The entries, and the width of each.
        Source: openaimodel.UNetModel `input_blocks`.
        """
        ch, entries, widths = first_width, [nnx.List([first])], [first_width]
        for i, width in enumerate(self.level_widths(channel_mult)):
            for _ in range(num_res_blocks):
                entries.append(nnx.List(self.level(ch, width, 2**i)))
                ch = width
                widths.append(ch)
            if i < len(channel_mult) - 1:
                entries.append(nnx.List([self.down(ch)]))
                widths.append(ch)
        return nnx.List(entries), widths

    def way_up(
        self, widths: Sequence[int], channel_mult: Sequence[int], num_res_blocks: int
    ) -> nnx.List:
        """One entry for each of the way down, which takes that one's output beside its input.

        Args:
          widths: of the way down; an `up` ends every level but the last.
        Source: openaimodel.UNetModel `output_blocks`.
        """
        skips, ch, entries = list(widths), widths[-1], []
        for i, width in reversed(list(enumerate(self.level_widths(channel_mult)))):
            for j in range(num_res_blocks + 1):
                layers = self.level(ch + skips.pop(), width, 2**i)
                ch = width
                if i > 0 and j == num_res_blocks:
                    layers.append(self.up(ch))
                entries.append(nnx.List(layers))
        return nnx.List(entries)
