"""1-D convolution and transposed convolution with torch's padding; for waveforms.

B batch, T time, C channels; channels last.
"""

from collections.abc import Callable

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from foley_jax.layers import initializers

_LAYOUT = ("NWC", "WIO", "NWC")


class Conv1d(nnx.Module):
    """Convolution [B, T, in] -> [B, ceil(T / stride), out]; odd kernel [k, in, out].

    Zeros on both sides as torch's `padding=dilation * (k - 1) // 2`. `kernel_init` None is torch's
    default.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        dilation: int = 1,
        stride: int = 1,
        use_bias: bool = True,
        kernel_init: Callable | None = None,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}, expected an odd number")
        kernel_init = kernel_init or initializers.kernel()
        shape = (kernel_size, in_channels, out_channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        bias_init = initializers.bias(kernel_size * in_channels)
        self.bias = nnx.Param(bias_init(rngs.params(), (out_channels,))) if use_bias else None
        self.dilation, self.stride = dilation, stride
        self.dtype = dtype

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """Convolves in the compute dtype."""
        kernel = self.kernel[...].astype(self.dtype)
        reach = self.dilation * (kernel.shape[0] - 1) // 2
        y = lax.conv_general_dilated(
            x_BTC.astype(self.dtype),
            kernel,
            window_strides=(self.stride,),
            padding=((reach, reach),),
            rhs_dilation=(self.dilation,),
            dimension_numbers=_LAYOUT,
        )
        return y if self.bias is None else y + self.bias[...].astype(self.dtype).reshape(1, 1, -1)


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
            dimension_numbers=_LAYOUT,
        )
        return y + self.bias[...].astype(self.dtype).reshape(1, 1, -1)
