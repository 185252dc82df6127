"""Parts of Stable Diffusion v1's U-Net, in the nesting of the official code."""

from collections.abc import Sequence
import dataclasses

from flax import nnx
import jax.numpy as jnp

from foley_jax.layers import conv, residual, transformer, unet_layout

NORM_EPSILON = 1e-5  # openaimodel util.GroupNorm32
TIME_MULT = 4  # width of the time embedding over model_channels


@dataclasses.dataclass(frozen=True)
class Blocks(unet_layout.Layout):
    """Makes the layers of one network; the fields are those of `UNet`."""

    model_channels: int
    attention_downsamples: Sequence[int]
    self_attention_downsamples: Sequence[int] | None
    num_heads: int
    context_dim: int
    depth: int
    num_groups: int
    locality_bias: bool
    feature_s: float
    attention_implementation: str
    dtype: jnp.dtype
    rngs: nnx.Rngs

    def res_block(self, in_ch: int, out_ch: int) -> residual.ResBlock:
        return residual.ResBlock(
            in_ch,
            out_ch,
            time_dim=TIME_MULT * self.model_channels,
            epsilon=NORM_EPSILON,
            num_groups=self.num_groups,
            zero_init=True,
            dtype=self.dtype,
            rngs=self.rngs,
        )

    def transformer(self, ch: int, self_attention: bool) -> transformer.SpatialTransformer:
        return transformer.SpatialTransformer(
            ch,
            self.num_heads,
            self.context_dim,
            depth=self.depth,
            num_groups=self.num_groups,
            self_attention=self_attention,
            use_locality=self.locality_bias,
            feature_s=self.feature_s,
            implementation=self.attention_implementation,
            dtype=self.dtype,
            rngs=self.rngs,
        )

    def level(self, in_ch: int, out_ch: int, downsample: int) -> list[nnx.Module]:
        """A residual block, with attention where this resolution has it."""
        layers: list[nnx.Module] = [self.res_block(in_ch, out_ch)]
        if downsample in self.attention_downsamples:
            own = self.self_attention_downsamples
            layers.append(self.transformer(out_ch, own is None or downsample in own))
        return layers

    def down(self, ch: int) -> conv.Downsample:
        return conv.Downsample(ch, dtype=self.dtype, rngs=self.rngs)

    def up(self, ch: int) -> conv.Upsample:
        return conv.Upsample(ch, dtype=self.dtype, rngs=self.rngs)

    def inputs(
        self, in_channels: int, channel_mult: Sequence[int], num_res_blocks: int
    ) -> tuple[nnx.List, list[int]]:
        """The way down, and the width of every entry."""
        ch = self.model_channels
        first = conv.Conv2d(in_channels, ch, dtype=self.dtype, rngs=self.rngs)
        return self.way_down(first, ch, channel_mult, num_res_blocks)
