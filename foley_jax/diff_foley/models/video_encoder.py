"""CAVP's image encoder: SlowOnly ResNet with one feature per frame.

Axes: B batch, T frames, N = B*T, H W, C channels. 3-D convolutions of the official network have
kernels 1xkxk or 3x1x1; here they run as 2-D convolutions over B*T frames and as convolutions over
time, which is the same arithmetic, and faster.
Source: inference/model/cavp_modules.py `ResNet3dSlowOnly`.
"""

from collections.abc import Sequence
import functools

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels import dispatch
from foley_jax.layers import batch_norm, conv, dense, patch_norm, rematerialisation

STEMS = ("conv7", "patch4", "motion4")
EXPANSION = 4  # a bottleneck's output over its inner width
_KAIMING = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")  # mmaction ResNet3d


class ConvNorm(nnx.Module):
    """Bias-free convolution over H, W (or over T), BatchNorm, maybe ReLU; [N, H, W, C] to same."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        temporal: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.kernel, self.stride, self.temporal = kernel, stride, temporal
        options = {"kernel_init": _KAIMING, "dtype": dtype, "rngs": rngs}
        if temporal:
            self.conv = conv.TemporalConv3(in_channels, out_channels, use_bias=False, **options)
        elif kernel == 1:
            self.conv = dense.Pointwise(in_channels, out_channels, **options)
        else:
            self.conv = conv.Conv2d(
                in_channels,
                out_channels,
                (kernel, kernel),
                stride=stride,
                use_bias=False,
                **options,
            )
        self.bn = batch_norm.BatchNorm(out_channels, dtype=dtype, rngs=rngs)

    def __call__(
        self, x_NHWC: jax.Array, num_frames: int, *, train: bool, relu: bool = False
    ) -> jax.Array:
        if self.temporal:
            n, h, w, c = x_NHWC.shape
            # [B*T, H, W, C] -> [B, T, H*W, C]
            x = self.conv(x_NHWC.reshape(n // num_frames, num_frames, h * w, c))
            x = x.reshape(n, h, w, x.shape[-1])  # [B, T, H*W, C] -> [B*T, H, W, C]
        elif self.kernel == 1:
            x = self.conv(x_NHWC[:, :: self.stride, :: self.stride])
        else:
            x = self.conv(x_NHWC)
        return self.bn(rematerialisation.kept(x), train=train, relu=relu)


class Bottleneck(nnx.Module):
    """1x1x1 (or 3x1x1) -> 1x3x3 (spatial stride) -> 1x1x1, added to the shortcut."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int,
        inflate: bool,
        has_downsample: bool,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        out = width * EXPANSION
        options = {"dtype": dtype, "rngs": rngs}
        self.conv1 = ConvNorm(
            in_channels, width, kernel=3 if inflate else 1, temporal=inflate, **options
        )
        self.conv2 = ConvNorm(width, width, kernel=3, stride=stride, **options)
        self.conv3 = ConvNorm(width, out, **options)
        self.downsample = (
            ConvNorm(in_channels, out, stride=stride, **options) if has_downsample else None
        )

    def __call__(self, x_NHWC: jax.Array, num_frames: int, *, train: bool) -> jax.Array:
        h = self.conv1(x_NHWC, num_frames, train=train, relu=True)
        h = self.conv2(h, num_frames, train=train, relu=True)
        h = self.conv3(h, num_frames, train=train)
        if self.downsample is not None:
            x_NHWC = self.downsample(x_NHWC, num_frames, train=train)
        return nnx.relu(h + x_NHWC)


class SlowOnly(nnx.Module):
    """SlowOnly ResNet-50 by default; temporal stride 1 everywhere, so T in = T out."""

    def __init__(
        self,
        depths: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        inflate: Sequence[bool] = (False, False, True, True),
        stem: str = "conv7",
        remat: str = "",
        *,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Args:
        depths: bottlenecks per layer.
        width: inner width of the first layer; it doubles with every layer.
        inflate: per layer, whether the first convolution of a bottleneck spans 3 frames.
        stem: "conv7" (official: 7x7 stride 2, then 3x3 max-pool stride 2), "patch4" (one 4x4
          patch map, for small images), or "motion4" (two of them, one of the image and one
          of its change since the frame before, so that a still background does not hide what
          moves); all divide the sides by 4.
        remat: what of a bottleneck is made again in the backward pass: "" nothing, "norms" all
          but its convolutions, "blocks" everything; each takes less memory than the one before,
          and more time.
        dtype: compute dtype; parameters are float32.
        """
        if stem not in STEMS:
            raise ValueError(f"stem is {stem!r}; known stems: {', '.join(STEMS)}")
        if len(depths) != len(inflate):
            raise ValueError(f"{len(depths)} depths but {len(inflate)} inflate flags")
        self.stem, self.remat, self.dtype = stem, remat, dtype
        if stem == "conv7":
            self.conv1 = ConvNorm(3, width, kernel=7, stride=2, dtype=dtype, rngs=rngs)
        else:
            patch = {"kernel_init": _KAIMING, "dtype": dtype, "rngs": rngs}
            self.conv1 = patch_norm.PatchNorm(3, width, 4, **patch)
            self.motion = patch_norm.PatchNorm(3, width, 4, **patch) if stem == "motion4" else None
        self.num_layers = len(depths)
        self.layers_of_single_frames = next((i for i, x in enumerate(inflate) if x), len(depths))
        channels = 2 * width if stem == "motion4" else width
        for i, depth in enumerate(depths):
            inner = width * 2**i
            blocks = []
            for j in range(depth):
                first = j == 0
                block = Bottleneck(
                    channels,
                    inner,
                    stride=2 if first and i > 0 else 1,
                    inflate=inflate[i],
                    has_downsample=first,
                    dtype=dtype,
                    rngs=rngs,
                )
                blocks.append(block)
                channels = inner * EXPANSION
            setattr(self, f"layer{i + 1}", nnx.List(blocks))
        self.out_dim = channels

    def apply_stem(self, x_BTHWC: jax.Array, *, train: bool) -> jax.Array:
        """[B, T, H, W, 3] -> [B*T, H/4, W/4, width], twice the width with "motion4"."""
        b, t = x_BTHWC.shape[:2]
        x = x_BTHWC.reshape(b * t, *x_BTHWC.shape[2:]).astype(self.dtype)
        if self.stem == "motion4":
            change = jnp.diff(x_BTHWC, axis=1, prepend=x_BTHWC[:, :1])  # zero at the start
            change = self.motion(change.reshape(x.shape).astype(self.dtype), train=train)
            return nnx.relu(jnp.concatenate([self.conv1(x, train=train), change], axis=-1))
        if self.stem == "patch4":
            return self.conv1(x, train=train, relu=True)
        x = self.conv1(x, t, train=train, relu=True)
        return dispatch.max_pool(x, train=train)

    def apply_layer(
        self, index: int, x_NHWC: jax.Array, num_frames: int, *, train: bool
    ) -> jax.Array:
        """Layer `index` (1-based, official numbering) on [B*T, H, W, C]."""
        call = functools.partial(Bottleneck.__call__, num_frames=num_frames, train=train)
        for block in getattr(self, f"layer{index}"):
            if self.remat and train:
                x_NHWC = rematerialisation.run(self.remat, call, block, x_NHWC)
            else:
                x_NHWC = call(block, x_NHWC)
        return x_NHWC

    def _up_to(self, layer: int, x_BTHWC: jax.Array, *, train: bool) -> jax.Array:
        """The stem and the layers 1 to `layer`: [B, T, H, W, 3] -> [B*T, H', W', C]."""
        x = self.apply_stem(x_BTHWC, train=train)
        for index in range(1, layer + 1):
            x = self.apply_layer(index, x, x_BTHWC.shape[1], train=train)
        return x

    def __call__(self, x_BTHWC: jax.Array, *, train: bool = False) -> jax.Array:
        """One feature per frame.

        Args:
          x_BTHWC: float [B, T, H, W, 3], RGB in [0, 1]; the temporal convolutions see zeros
            before and after the T frames.
          train: use and update batch statistics.
        Returns:
          [B, T, out_dim] in `dtype`, mean over the image of the last layer.
        """
        if x_BTHWC.ndim != 5 or x_BTHWC.shape[-1] != 3:
            raise ValueError(f"frames have shape {x_BTHWC.shape}, expected [B, T, H, W, 3]")
        b, t = x_BTHWC.shape[:2]
        alone = self.layers_of_single_frames
        if train or self.stem == "motion4":
            x = self._up_to(alone, x_BTHWC, train=train)
        else:  # frames do not meet before the layers over time
            frames_NHWC = x_BTHWC.reshape(b * t, *x_BTHWC.shape[2:])
            call = lambda x_NHWC: self._up_to(alone, x_NHWC[None], train=False)  # noqa: E731
            x = dispatch.a_few_at_a_time(call, frames_NHWC)
        for index in range(alone + 1, self.num_layers + 1):
            x = self.apply_layer(index, x, t, train=train)
        # [B*T, H, W, C] -> [B, T, C], averaged in float32
        return x.astype(jnp.float32).mean(axis=(1, 2)).astype(self.dtype).reshape(b, t, -1)
