"""Convolutions in one, two and three dimensions, with torch's padding and initialisation.

B batch, T time, F frames, H W space, P pixels, C channels; channels last. Parameters are float32;
the arithmetic is in `dtype`.
"""

from collections.abc import Callable
import math
from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.kernels import dispatch
from foley_jax.layers import initializers

Padding = tuple[tuple[int, int], tuple[int, int]]
_LAYOUT_1D = ("NWC", "WIO", "NWC")


class _Conv(nnx.Module):
    """A kernel [*size, in, out] and maybe a bias [out], for the classes below."""

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        use_bias: bool = True,
        kernel_init: Callable | None = None,
        zero_init: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Args:
        shape: of the kernel.
        kernel_init: None is torch's default, or zeros with `zero_init`.
        zero_init: kernel and bias are zero at first.
        """
        *size, in_channels, out_channels = shape
        kernel_init = kernel_init or initializers.kernel(zero=zero_init)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        bias_init = initializers.bias(math.prod(size) * in_channels, zero=zero_init)
        self.bias = nnx.Param(bias_init(rngs.params(), (out_channels,))) if use_bias else None
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves in the compute dtype."""
        y = self._convolve(x.astype(self.dtype), self.kernel[...].astype(self.dtype))
        if self.bias is None:
            return y
        return y + self.bias[...].astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))

    def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        raise NotImplementedError


class Conv2d(_Conv):
    """[B, H, W, in] -> [B, H', W', out]; kernel [kh, kw, in, out].

    `padding=None` is torch's `padding=k//2` on both sides (SAME would pad only the end at
    stride 2). Without a bias it stands before a BatchNorm, and is trained over many images: its
    gradients may then be matrix products, see `dispatch.conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int] = (3, 3),
        *,
        stride: int = 1,
        padding: Padding | None = None,
        upsample: bool = False,
        **options: Any,
    ):
        """Args:
        stride: of both axes.
        padding: zeros before and after, of H and of W.
        upsample: repeat every pixel 2x2 before a plain 3x3 convolution.
        **options: of every convolution: use_bias, kernel_init, zero_init, dtype, rngs.
        """
        kh, kw = kernel_size
        super().__init__((kh, kw, in_channels, out_channels), **options)
        self.stride = stride
        self.padding = ((kh // 2, kh // 2), (kw // 2, kw // 2)) if padding is None else padding
        self.upsample = upsample
        if upsample and (kernel_size, stride, padding) != ((3, 3), 1, None):
            raise ValueError("only a plain 3x3 convolution can upsample the image before it")

    def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        if self.upsample:
            return dispatch.upsampled_conv(x, kernel)
        return dispatch.conv2d(
            x,
            kernel,
            stride=self.stride,
            padding=self.padding,
            gradients_as_products=self.bias is None,
        )


class Downsample(nnx.Module):
    """Stride-2 3x3 conv, one pixel of zeros on every side. Source: openaimodel.Downsample."""

    def __init__(self, channels: int, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.op = Conv2d(channels, channels, stride=2, dtype=dtype, rngs=rngs)

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H/2, W/2, C]."""
        return self.op(x_BHWC)


class Upsample(nnx.Module):
    """Repeats pixels 2x2, then convolves 3x3. Source: openaimodel.Upsample."""

    def __init__(self, channels: int, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.conv = Conv2d(channels, channels, upsample=True, dtype=dtype, rngs=rngs)

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, 2H, 2W, C]."""
        return self.conv(x_BHWC)


class Conv3d(_Conv):
    """3x3x3 with zeros around: [B, F, H, W, in] -> [B, F, H, W, out]; kernel [3, 3, 3, in, out]."""

    def __init__(self, in_channels: int, out_channels: int, **options: Any):
        super().__init__((3, 3, 3, in_channels, out_channels), **options)

    def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return dispatch.conv3d(x, kernel)


class TemporalConv3(_Conv):
    """Three neighbouring frames, zeros beyond the ends: [B, T, P, in] -> [B, T, P, out].

    Kernel [3, in, out].
    """

    def __init__(self, in_channels: int, out_channels: int, **options: Any):
        super().__init__((3, in_channels, out_channels), **options)

    def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return dispatch.temporal_conv(x, kernel)


class Conv1d(_Conv):
    """[B, T, in] -> [B, ceil(T / stride), out]; odd kernel [k, in, out].

    Zeros on both sides as torch's `padding=dilation * (k - 1) // 2`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        dilation: int = 1,
        stride: int = 1,
        **options: Any,
    ):
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}, expected an odd number")
        super().__init__((kernel_size, in_channels, out_channels), **options)
        self.dilation, self.stride = dilation, stride

    def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        reach = self.dilation * (kernel.shape[0] - 1) // 2
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride,),
            padding=((reach, reach),),
            rhs_dilation=(self.dilation,),
            dimension_numbers=_LAYOUT_1D,
        )


class ConvTranspose1d(nnx.Module):
    """Transposed convolution [B, T, in] -> [B, T * stride, out]; kernel [k, out, in].

    torch's ConvTranspose1d(k, stride, padding=(k - stride) // 2), k - stride even: sample
    stride * t + n - padding of the output receives kernel[n] times sample t of the input.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        *,
        kernel_init: Callable | None = None,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if kernel_size < stride or (kernel_size - stride) % 2:
            raise ValueError(
                f"kernel_size {kernel_size} and stride {stride}: expected a kernel at least as "
                "long as the stride and a difference that is even"
            )
        # torch takes the fan from the second axis of its [in, out, k], which is the last but one
        # of ours
        kernel_init = kernel_init or initializers.kernel()
        shape = (kernel_size, out_channels, in_channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        bias_init = initializers.bias(kernel_size * out_channels)
        self.bias = nnx.Param(bias_init(rngs.params(), (out_channels,)))
        self.stride = stride
        self.dtype = dtype

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """Upsamples in the compute dtype."""
        kernel = jnp.flip(self.kernel[...], 0).swapaxes(1, 2).astype(self.dtype)  # [k, in, out]
        reach = kernel.shape[0] - 1 - (kernel.shape[0] - self.stride) // 2
        y = lax.conv_general_dilated(
            x_BTC.astype(self.dtype),
            kernel,
            window_strides=(1,),
            padding=((reach, reach),),
            lhs_dilation=(self.stride,),
            dimension_numbers=_LAYOUT_1D,
        )
        return y + self.bias[...].astype(self.dtype).reshape(1, 1, -1)
