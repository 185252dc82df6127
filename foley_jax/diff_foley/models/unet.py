"""The latent-diffusion U-Net: Stable Diffusion v1's, over mel latents and video features.

B batch, H W latent rows (frequency) and columns (time), C channels, L features, D their width.
The nesting `input_blocks` / `middle_block` / `output_blocks` is the official one, so conversion is
renames only.
"""

from collections.abc import Callable, Mapping, Sequence
import itertools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.diff_foley.models import unet_blocks
from foley_jax.layers import (
    attention,
    configured,
    conv,
    dense,
    embedding,
    locality,
    norm,
    residual,
    transformer,
)
from foley_jax.runtime import partition

# of every entry, of its spatial transformers, of their blocks
KeysValues = list[list[list[attention.KeysValues]]]
Run = Callable[[int, jax.Array], jax.Array]  # one of the entries, by its number


class Trunk(nnx.Module):
    """Time embedding, way down and middle: what the U-Net and the alignment classifier share."""

    def __init__(
        self,
        blocks: unet_blocks.Blocks,
        *,
        in_channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: int,
        middle_self_attention: bool,
        column_s: float,
        remat: bool,
    ):
        time_dim = unet_blocks.TIME_MULT * blocks.model_channels
        build = {"dtype": blocks.dtype, "rngs": blocks.rngs}
        self.time_embed = nnx.List(
            [
                dense.dense(blocks.model_channels, time_dim, **build),
                dense.dense(time_dim, time_dim, **build),
            ]
        )
        self.input_blocks, widths = blocks.inputs(in_channels, channel_mult, num_res_blocks)
        self.widths = tuple(widths)
        ch = widths[-1]
        middle = blocks.transformer(ch, middle_self_attention)
        self.middle_block = nnx.List([blocks.res_block(ch, ch), middle, blocks.res_block(ch, ch)])
        self.in_channels = in_channels
        self.model_channels = blocks.model_channels
        self.context_dim = blocks.context_dim
        self.num_halvings = len(channel_mult) - 1
        self.locality_bias = blocks.locality_bias
        self.feature_s = blocks.feature_s
        self.column_s = column_s
        self.remat = remat
        self.dtype = blocks.dtype

    def _check(self, x_BHWC: jax.Array) -> None:
        factor = 2**self.num_halvings
        _, h, w, c = x_BHWC.shape
        if c != self.in_channels or h % factor or w % factor:
            raise ValueError(
                f"latent is {h}x{w}x{c}, expected {self.in_channels} channels and sides that are "
                f"multiples of {factor}; check the autoencoder's config against the "
                f"{type(self).__name__}'s"
            )

    def _check_context(self, context_BLD: jax.Array) -> None:
        if context_BLD.shape[-1] != self.context_dim:
            raise ValueError(
                f"context features have width {context_BLD.shape[-1]}, the {type(self).__name__} "
                f"expects {self.context_dim}; check conditioner.out_dim"
            )

    def _contexts(self, context: jax.Array | KeysValues) -> Sequence[Any]:
        """The context of each of `entries`."""
        if isinstance(context, list):
            return context
        self._check_context(context)
        return [context.astype(self.dtype)] * len(self.entries())

    def _relative_times(
        self, x_BHWC: jax.Array, context_s_BL: jax.Array, column_s: float
    ) -> dict[int, jax.Array]:
        """Column-to-feature distances of every level, by the level's number of columns."""
        if not self.locality_bias:
            return {}
        w = x_BHWC.shape[2]
        return {
            w >> i: locality.relative_times(w >> i, column_s * 2**i, context_s_BL)
            for i in range(self.num_halvings + 1)
        }

    def entries(self) -> list[nnx.List]:
        """Returns what `run_layers` runs, in order."""
        return [*self.input_blocks, self.middle_block]

    def keys_values(self, context_BLD: jax.Array) -> KeysValues:
        """Keys and values of all cross-attentions, which depend on nothing but the context.

        `__call__` takes them in its place: samplers, whose context is the same at every step, make
        them once.
        """
        self._check_context(context_BLD)
        context = context_BLD.astype(self.dtype)
        made = []
        for layers in self.entries():
            inner = (y for y in layers if isinstance(y, transformer.SpatialTransformer))
            made.append([layer.keys_values(context) for layer in inner])
        return made

    def run_layers(self, layers, h, time_BD, context, relative):
        """One of `entries`; `context` is the features, or what `keys_values` has for this entry."""

        def run(h, time_BD, context, relative):
            own = iter(context) if isinstance(context, list) else itertools.repeat(context)
            for layer in layers:
                if isinstance(layer, residual.ResBlock):
                    h = layer(h, time_BD)
                elif isinstance(layer, transformer.SpatialTransformer):
                    h = layer(h, next(own), relative.get(h.shape[2]))
                else:
                    h = layer(h)
            return partition.shard_batch(h)

        run = jax.checkpoint(run) if self.remat else run
        return run(h, time_BD, context, relative)

    def runner(
        self,
        x_BHWC: jax.Array,
        t_B: jax.Array,
        context: jax.Array | KeysValues,
        context_s_BL: jax.Array | None,
        column_s: float | None,
    ) -> Run:
        """Returns what runs one of `entries`, by its number; arguments as of `UNet.__call__`."""
        self._check(x_BHWC)
        entries, contexts = self.entries(), self._contexts(context)
        b, num_features = jax.tree.leaves(context)[0].shape[:2]
        if context_s_BL is None:
            features = jnp.arange(num_features, dtype=jnp.float32) * self.feature_s
            context_s_BL = jnp.broadcast_to(features[None], (b, num_features))
        relative = self._relative_times(
            x_BHWC, context_s_BL, self.column_s if column_s is None else column_s
        )
        time_BD = self.time_embed[0](embedding.timestep_embedding(t_B, self.model_channels))
        # every block starts its time branch with a SiLU: done once here
        time_BD = jax.nn.silu(self.time_embed[1](jax.nn.silu(time_BD)))

        def run(number: int, h: jax.Array) -> jax.Array:
            return self.run_layers(entries[number], h, time_BD, contexts[number], relative)

        return run

    def down(self, run: Run, h: jax.Array, first: int = 0) -> tuple[jax.Array, list[jax.Array]]:
        """The way down from entry `first` on, and the middle.

        Returns:
          The middle's output, and the outputs of the entries before it.
        """
        h, skips = h.astype(self.dtype), []
        for number in range(first, len(self.input_blocks)):
            h = run(number, h)
            skips.append(h)
        return run(len(self.input_blocks), h), skips


class UNet(Trunk):
    """Predicts the noise (or v) in a latent, given the step and the features of the video.

    Defaults are Stable Diffusion v1 exactly: 859,520,964 parameters.
    Fields beyond it: `locality_bias` (see `layers.locality`), `column_s` the seconds of one latent
    column (the default is 8 mel frames of hop 256 at 16 kHz) and `feature_s` those from one feature
    to the next, `self_attention_downsamples` the levels that also have self-attention (None:
    wherever there is cross-attention), `num_groups` of the group norms,
    `attention_implementation` as in `dispatch.attention`.
    """

    def __init__(
        self,
        *,
        in_channels: int = 4,
        out_channels: int = 4,
        model_channels: int = 320,
        channel_mult: Sequence[int] = (1, 2, 4, 4),
        num_res_blocks: int = 2,
        attention_downsamples: Sequence[int] = (1, 2, 4),
        self_attention_downsamples: Sequence[int] | None = None,
        middle_self_attention: bool = True,
        num_heads: int = 8,
        context_dim: int = 768,
        depth: int = 1,
        num_groups: int = 32,
        locality_bias: bool = False,
        column_s: float = 0.128,
        feature_s: float = locality.FEATURE_S,
        remat: bool = False,
        attention_implementation: str = "auto",
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        blocks = unet_blocks.Blocks(
            model_channels=model_channels,
            attention_downsamples=attention_downsamples,
            self_attention_downsamples=self_attention_downsamples,
            num_heads=num_heads,
            context_dim=context_dim,
            depth=depth,
            num_groups=num_groups,
            locality_bias=locality_bias,
            feature_s=feature_s,
            attention_implementation=attention_implementation,
            dtype=dtype,
            rngs=rngs,
        )
        super().__init__(
            blocks,
            in_channels=in_channels,
            channel_mult=channel_mult,
            num_res_blocks=num_res_blocks,
            middle_self_attention=middle_self_attention,
            column_s=column_s,
            remat=remat,
        )
        self.output_blocks = blocks.way_up(self.widths, channel_mult, num_res_blocks)
        ch = channel_mult[0] * model_channels
        self.norm_out = norm.GroupNorm32(
            ch, num_groups=num_groups, epsilon=unet_blocks.NORM_EPSILON, rngs=rngs
        )
        self.conv_out = conv.Conv2d(ch, out_channels, zero_init=True, dtype=dtype, rngs=rngs)

    def entries(self) -> list[nnx.List]:
        """See `Trunk.entries`."""
        return [*super().entries(), *self.output_blocks]

    def __call__(
        self,
        x_BHWC: jax.Array,
        t_B: jax.Array,
        context: jax.Array | KeysValues,
        *,
        context_s_BL: jax.Array | None = None,
        column_s: float | None = None,
    ) -> jax.Array:
        """One prediction.

        Args:
          x_BHWC: noisy scaled latents.
          t_B: steps in model time [0, num_steps), float32, fractions allowed.
          context: features [B, L, D] after the conditioner, or their `keys_values`.
          context_s_BL: seconds of each feature relative to the start of the window, used with
            `locality_bias` only; default every `feature_s` from 0 on.
          column_s: seconds of one latent column; default the config's.
        Returns:
          float32 [B, H, W, out_channels].
        Raises:
          ValueError: sizes that do not fit the config.
        Source: Diff-Foley adm openaimodel.UNetModel.forward.
        """
        run = self.runner(x_BHWC, t_B, context, context_s_BL, column_s)
        return self._predicted(self._within(run, x_BHWC, 0))

    def reusing(
        self,
        x_BHWC: jax.Array,
        t_B: jax.Array,
        context: jax.Array | KeysValues,
        deep_BHWC: jax.Array,
        *,
        fresh: jax.Array,
        depth: int,
        context_s_BL: jax.Array | None = None,
        column_s: float | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """`__call__` that may take what its deep entries gave at an earlier step.

        Always run are the first `depth` entries of the way down and the last `depth` of the way
        up; the others only if `fresh`.

        Args:
          deep_BHWC: what the last call returned, of `deep_shape`; any values where `fresh`.
          fresh: bool scalar, decided on the device.
          depth: at least 1, less than the way down has entries.
        Returns:
          The prediction; the deep entries' output, for the next call.
        Raises:
          ValueError: `depth` out of range, or as for `__call__`.
        Source: Ma et al. 2023 (DeepCache), section 3.3.
        """
        self._check_depth(depth)
        run = self.runner(x_BHWC, t_B, context, context_s_BL, column_s)
        h, skips = x_BHWC.astype(self.dtype), []
        for number in range(depth):
            h = run(number, h)
            skips.append(h)
        deep_BHWC = jax.lax.cond(
            fresh, lambda h, _: self._within(run, h, depth), lambda _, deep: deep, h, deep_BHWC
        )
        return self._predicted(self._up(run, deep_BHWC, skips, 0)), deep_BHWC

    def deep_shape(self, latent_shape: Sequence[int], depth: int) -> tuple[int, int, int]:
        """[H, W, C] of the features that `reusing` keeps of a latent [H, W, C].

        Raises:
          ValueError: `depth` out of range.
        """
        self._check_depth(depth)
        taken = self.output_blocks[-depth][0].norm1.scale.shape[0]
        halvings = sum(
            isinstance(layers[0], conv.Downsample) for layers in self.input_blocks[:depth]
        )
        height, width, _ = latent_shape
        return height >> halvings, width >> halvings, taken - self.widths[depth - 1]

    def _check_depth(self, depth: int) -> None:
        most = len(self.input_blocks) - 1
        if not 1 <= depth <= most:
            raise ValueError(
                f"cache depth is {depth}, expected 1 to {most}: so many of this U-Net's "
                f"{most + 1} entries of the way down are computed at every step"
            )

    def _within(self, run: Run, h: jax.Array, first: int) -> jax.Array:
        """The U-Net from entry `first` of its way down to the matching one of its way up."""
        return self._up(run, *self.down(run, h, first), first)

    def _up(
        self,
        run: Run,
        h: jax.Array,
        skips: Sequence[jax.Array],
        first: int,
    ) -> jax.Array:
        """The entries of the way up that take `skips`, the outputs of entry `first` and on."""
        last = 2 * len(self.input_blocks)
        for i in reversed(range(len(skips))):
            h = run(last - first - i, jnp.concatenate([h, skips[i]], axis=-1))
        return h

    def _predicted(self, h: jax.Array) -> jax.Array:
        return self.conv_out(jax.nn.silu(self.norm_out(h))).astype(jnp.float32)


def from_config(config: Mapping[str, Any], *, dtype: Any = None, rngs: nnx.Rngs) -> UNet:
    """Builds the U-Net of `config.model.unet`; its fields are the constructor's arguments.

    Raises:
      ValueError: unknown field.
    """
    return configured.build(UNet, config, dtype=dtype, rngs=rngs)
