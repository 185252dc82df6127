"""The coupled U-Net: predicts the noise in a clip's video and audio together.

B batch, F frames, H W space, L audio samples, C channels, D width of the time embedding, N number
of shifted windows.
The nesting `input_blocks` / `middle_blocks` / `output_blocks` is the official one, so conversion
is renames only.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels import patches
from foley_jax.layers import configured, conv, dense, embedding
from foley_jax.mm_diffusion.models import blocks, window_attention
from foley_jax.runtime import partition

MAX_DILATION_POWER = 10  # audio dilations are 2 ** (block number mod 10)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Makes the layers of one network; the fields are those of `CoupledUNet`."""

    model_channels: int
    windows: Mapping[int, int]  # downsampling of a level -> frames of its cross-attention
    video_attention_downsamples: Sequence[int]
    audio_attention_downsamples: Sequence[int]
    head_channels: int
    time_positions: bool
    frame_s: float
    dropout: float
    dtype: jnp.dtype
    rngs: nnx.Rngs

    def res_block(self, in_ch: int, out_ch: int, number: int, **kwargs: Any) -> blocks.ResBlock:
        """`number` counts the blocks of the way down and sets the audio's dilation."""
        return blocks.ResBlock(
            in_ch,
            out_ch,
            time_dim=self.model_channels,
            dilation=2 ** (number % MAX_DILATION_POWER),
            dropout_rate=self.dropout,
            dtype=self.dtype,
            rngs=self.rngs,
            **kwargs,
        )

    def cross(self, ch: int, window: int | None) -> window_attention.WindowAttention:
        if ch % self.head_channels:
            raise ValueError(
                f"{ch} channels cannot be split into heads of head_channels={self.head_channels}"
            )
        heads = ch // self.head_channels
        return window_attention.WindowAttention(
            ch,
            heads,
            window=window,
            time_positions=self.time_positions,
            frame_s=self.frame_s,
            dtype=self.dtype,
            rngs=self.rngs,
        )

    def level(self, in_ch: int, out_ch: int, number: int, downsample: int) -> list[nnx.Module]:
        """A residual block, with the attention that this resolution has."""
        layers: list[nnx.Module] = [
            self.res_block(
                in_ch,
                out_ch,
                number,
                video_attention=downsample in self.video_attention_downsamples,
                audio_attention=downsample in self.audio_attention_downsamples,
            )
        ]
        if downsample in self.windows:
            layers.append(self.cross(out_ch, self.windows[downsample]))
        return layers

    def inputs(
        self, first: nnx.Module, channel_mult: Sequence[int], num_res_blocks: int
    ) -> tuple[nnx.List, list[int], int]:
        """The way down, the width of every entry, and the number of the block that follows."""
        ch = self.model_channels * channel_mult[0]
        entries, widths, number = [nnx.List([first])], [ch], 1
        for i, mult in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                entries.append(nnx.List(self.level(ch, mult * self.model_channels, number, 2**i)))
                ch = mult * self.model_channels
                widths.append(ch)
                number += 1
            if i < len(channel_mult) - 1:
                entries.append(nnx.List([self.res_block(ch, ch, number, resample="down")]))
                widths.append(ch)
                number += 1
        return nnx.List(entries), widths, number

    def middle(self, ch: int, number: int, cross_attention: bool) -> nnx.List:
        """Two residual blocks with all attention, and between them the whole clip at once."""
        attention = {"video_attention": True, "audio_attention": True}
        first = self.res_block(ch, ch, number, **attention)
        cross = [self.cross(ch, None)] if cross_attention else []
        return nnx.List([first, *cross, self.res_block(ch, ch, number, **attention)])

    def outputs(
        self, widths: Sequence[int], channel_mult: Sequence[int], num_res_blocks: int, number: int
    ) -> nnx.List:
        """The way up; every entry takes the matching one of the way down beside its input."""
        skips, ch, entries = list(widths), widths[-1], []
        for i, mult in reversed(list(enumerate(channel_mult))):
            for j in range(num_res_blocks + 1):
                number -= 1
                layers = self.level(ch + skips.pop(), mult * self.model_channels, number, 2**i)
                ch = mult * self.model_channels
                if i > 0 and j == num_res_blocks:
                    # the number that the next level starts with
                    layers.append(self.res_block(ch, ch, number - 1, resample="up"))
                entries.append(nnx.List(layers))
        return nnx.List(entries)


class CoupledUNet(nnx.Module):
    """Predicts the noise in a clip's video and audio, given the step.

    Defaults are the official scripts' network: 133,675,524 parameters. Any clip fits whose sides
    the levels divide: H and W by 2 per level, L by 4, every windowed level at least as long as
    its window and with one audio sample per frame or more.
    `video_patch` pixels a side and `audio_patch` samples are folded into channels on the way in
    and back on the way out (1 in the paper: no folding); the levels then divide what is left.
    That is how a small machine affords a clip of useful size.
    Fields: `cross_attention_windows` the frames of the windows at `cross_attention_downsamples`,
    `head_channels` the width of a cross-attention head (self-attention has 4 heads always),
    `num_frames` the F that `shift_limits` and `draw_shifts` take for granted, `dropout` the share
    dropped before the last map of every residual block, `random_shift` False keeps every window
    where it is, `middle_cross_attention` False leaves the middle block's out (both for the
    paper's ablation), `time_positions` turns queries and keys of all cross-attention by the seconds
    of their tokens, frames `frame_s` apart (beyond the paper, see that module), `remat` recomputes
    each entry in the backward pass, under the shifts of the forward pass (the official code draws
    new ones).
    """

    def __init__(
        self,
        *,
        video_channels: int = 3,
        audio_channels: int = 1,
        video_patch: int = 1,
        audio_patch: int = 1,
        num_frames: int = 16,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        num_res_blocks: int = 2,
        cross_attention_downsamples: Sequence[int] = (2, 4, 8),
        cross_attention_windows: Sequence[int] = (1, 4, 8),
        middle_cross_attention: bool = True,
        video_attention_downsamples: Sequence[int] = (2, 4, 8),
        audio_attention_downsamples: Sequence[int] = (),
        head_channels: int = 64,
        time_positions: bool = False,
        frame_s: float = 0.1,
        dropout: float = 0.0,
        random_shift: bool = True,
        remat: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if len(cross_attention_downsamples) != len(cross_attention_windows):
            raise ValueError(
                f"cross_attention_windows {tuple(cross_attention_windows)} must name one window "
                f"for each of cross_attention_downsamples {tuple(cross_attention_downsamples)}"
            )
        make = Blocks(
            model_channels=model_channels,
            windows=dict(zip(cross_attention_downsamples, cross_attention_windows)),
            video_attention_downsamples=video_attention_downsamples,
            audio_attention_downsamples=audio_attention_downsamples,
            head_channels=head_channels,
            time_positions=time_positions,
            frame_s=frame_s,
            dropout=dropout,
            dtype=dtype,
            rngs=rngs,
        )
        # float32 as in the official half-precision mode; as wide as the model, not four times
        embed = lambda: dense.dense(model_channels, model_channels, rngs=rngs)  # noqa: E731
        self.time_embed = nnx.List([embed(), embed()])
        ch = model_channels * channel_mult[0]
        build = {"dtype": dtype, "rngs": rngs}
        folded = (video_channels * video_patch**2, audio_channels * audio_patch)
        first = blocks.InputBlock(*folded, ch, **build)
        self.input_blocks, widths, number = make.inputs(first, channel_mult, num_res_blocks)
        self.middle_blocks = make.middle(widths[-1], number, middle_cross_attention)
        self.output_blocks = make.outputs(widths, channel_mult, num_res_blocks, number)
        self.video_norm_out = blocks.group_norm(ch, rngs=rngs)
        self.audio_norm_out = blocks.group_norm(ch, rngs=rngs)
        self.video_conv_out = conv.Conv3d(ch, folded[0], zero_init=True, **build)
        self.audio_conv_out = blocks.audio_conv(ch, folded[1], zero_init=True, **build)
        self.channels = (video_channels, audio_channels)
        self.video_patch, self.audio_patch = video_patch, audio_patch
        self.num_frames = num_frames
        self.model_channels = model_channels
        self.num_halvings = len(channel_mult) - 1
        self.random_shift = random_shift
        self.remat = remat
        self.dtype = dtype

    @property
    def windows(self) -> tuple[int, ...]:
        """Frames of every shifted window, in the order of the network; 15 in the paper."""
        return tuple(
            layer.window
            for entry in (*self.input_blocks, *self.output_blocks)
            for layer in entry
            if isinstance(layer, window_attention.WindowAttention)
        )

    @property
    def num_shifts(self) -> int:
        """How many shifts one forward pass takes: the middle block has none."""
        return len(self.windows)

    def shift_limits(self, num_frames: int | None = None) -> tuple[int, ...]:
        """The largest shift of every window, F - S; F is the config's by default.

        Raises:
          ValueError: a window is longer than the clip.
        """
        f = self.num_frames if num_frames is None else num_frames
        if f < max(self.windows, default=0):
            raise ValueError(
                f"clip of {f} frames is shorter than the longest of cross_attention_windows, "
                f"{max(self.windows)}"
            )
        return tuple(f - window for window in self.windows)

    def draw_shifts(self, key: jax.Array, num_frames: int | None = None) -> jax.Array:
        """Uniform shifts in [0, F - S], both ends included: int32 [N].

        The official code draws them anew in every forward pass, at inference too. All zero
        without `random_shift`.
        """
        if not self.random_shift:
            return jnp.zeros((self.num_shifts,), jnp.int32)
        top_N = jnp.asarray(self.shift_limits(num_frames), jnp.int32)
        return jax.random.randint(key, top_N.shape, 0, top_N + 1, jnp.int32)

    def _check(self, video: jax.Array, audio: jax.Array, t: jax.Array, shifts: jax.Array) -> None:
        if video.ndim != 5 or audio.ndim != 3:
            raise ValueError(
                f"video is {video.shape} and audio {audio.shape}, expected [B, F, H, W, C] and "
                "[B, L, C]"
            )
        b, f, h, w, channels = video.shape
        halve = self.video_patch * 2**self.num_halvings
        quarter = self.audio_patch * blocks.AUDIO_FACTOR**self.num_halvings
        if (channels, audio.shape[-1]) != self.channels:
            raise ValueError(
                f"video has {channels} channels and audio {audio.shape[-1]}, expected "
                f"{self.channels}; check video_channels and audio_channels"
            )
        if (audio.shape[0], t.shape) != (b, (b,)):
            raise ValueError(f"{b} videos, {audio.shape[0]} audio clips, steps of shape {t.shape}")
        if h % halve or w % halve or audio.shape[1] % quarter:
            raise ValueError(
                f"clip of {h}x{w} pixels and {audio.shape[1]} samples; the levels need sides that "
                f"are multiples of {halve} and a number of samples that is one of {quarter}"
            )
        if shifts.shape != (self.num_shifts,) or not jnp.issubdtype(shifts.dtype, jnp.integer):
            raise ValueError(
                f"shifts are {shifts.dtype} {shifts.shape}, expected int32 ({self.num_shifts},): "
                "one per shifted window, see draw_shifts"
            )
        self.shift_limits(f)

    def _fold(self, video: jax.Array, audio: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Patches into channels: [B, F, H, W, C] and [B, L, C] of pixels and samples."""
        (b, f, h, w, c), p = video.shape, self.video_patch
        video = patches.space_to_depth(video.reshape(b * f, h, w, c), (p, p))
        audio = audio.reshape(b, -1, self.audio_patch * audio.shape[-1])
        return video.reshape(b, f, *video.shape[1:]), audio

    def _unfold(self, video: jax.Array, audio: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The inverse of `_fold`."""
        (b, f, h, w, c), p = video.shape, self.video_patch
        video = patches.depth_to_space(video.reshape(b * f, h, w, c), (p, p))
        return video.reshape(b, f, *video.shape[1:]), audio.reshape(b, -1, self.channels[1])

    def _run(self, entry, video, audio, time_BD, shifts_N, key):
        """One entry of the three lists; `shifts_N` are those of its windows."""

        def run(video, audio, time_BD, shifts_N, key):
            used = 0
            for i, layer in enumerate(entry):
                if isinstance(layer, blocks.ResBlock):
                    own = None if key is None else jax.random.fold_in(key, i)
                    video, audio = layer(video, audio, time_BD, own)
                elif isinstance(layer, window_attention.WindowAttention):
                    shift = None if layer.window is None else shifts_N[used]
                    used += shift is not None
                    video, audio = layer(video, audio, shift)
                else:
                    video, audio = layer(video, audio)
            return partition.shard_batch(video), partition.shard_batch(audio)

        # shifts and key are arguments: what is recomputed is what was computed
        run = jax.checkpoint(run) if self.remat else run
        return run(video, audio, time_BD, shifts_N, key)

    def __call__(
        self,
        video_BTHWC: jax.Array,
        audio_BLC: jax.Array,
        t_B: jax.Array,
        shifts_N: jax.Array,
        *,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """One prediction.

        Args:
          video_BTHWC: noisy video, float, clean values in [-1, 1]; T frames.
          audio_BLC: noisy audio, float, clean values in [-1, 1].
          t_B: steps in model time [0, num_steps), int or float.
          shifts_N: int32, in [0, shift_limits(T)], in the order of the windows in the network.
          dropout_key: None for no dropout.
        Returns:
          Noise of the video and of the audio, float32, shapes of the inputs.
        Raises:
          ValueError: shapes that do not fit the levels, the windows or each other.
        Source: multimodal_unet.py MultimodalUNet.forward.
        """
        self._check(video_BTHWC, audio_BLC, t_B, shifts_N)
        time_BD = self.time_embed[0](embedding.timestep_embedding(t_B, self.model_channels))
        # every block starts its time branch with a SiLU: done once here
        time_BD = jax.nn.silu(self.time_embed[1](jax.nn.silu(time_BD)))
        x, skips = self._fold(video_BTHWC.astype(self.dtype), audio_BLC.astype(self.dtype)), []
        first = 0

        def step(entry, x, number):
            nonlocal first
            cross = [y for y in entry if isinstance(y, window_attention.WindowAttention)]
            used = sum(y.window is not None for y in cross)
            shifts = shifts_N[first : first + used]
            first += used
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, number)
            return self._run(entry, *x, time_BD, shifts, key)

        for entry in self.input_blocks:
            x = step(entry, x, len(skips))
            skips.append(x)
        x = step(self.middle_blocks, x, len(skips))
        for i, entry in enumerate(self.output_blocks):
            x = tuple(jnp.concatenate(pair, axis=-1) for pair in zip(x, skips.pop()))
            x = step(entry, x, len(self.input_blocks) + 1 + i)
        video = self.video_conv_out(jax.nn.silu(self.video_norm_out(x[0])))
        audio = self.audio_conv_out(jax.nn.silu(self.audio_norm_out(x[1])))
        return self._unfold(video.astype(jnp.float32), audio.astype(jnp.float32))


def from_config(
    config: Mapping[str, Any],
    *,
    frame_s: float | None = None,
    dtype: Any = None,
    rngs: nnx.Rngs,
) -> CoupledUNet:
    """Builds the network of `config.model`; its fields are the constructor's arguments.

    Args:
      frame_s: seconds between frames, where the config does not say.
    Raises:
      ValueError: unknown field.
    """
    given = {} if frame_s is None else {"frame_s": frame_s}
    return configured.build(CoupledUNet, {**given, **config}, dtype=dtype, rngs=rngs)
