"""2-D convolution, dense layer and resampling by two, with torch's padding and initialisation.

B batch, H W space, C channels; channels last.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels.cpu import conv, forms
from foley_jax.kernels.cpu import dense as cpu_dense
from foley_jax.layers import initializers, upsampling


def dense(
    in_dim: int,
    out_dim: int,
    *,
    use_bias: bool = True,
    zero_init: bool = False,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """Linear layer [..., in_dim] -> [..., out_dim], float32 parameters, torch initialisation."""
    return nnx.Linear(
        in_dim,
        out_dim,
        use_bias=use_bias,
        kernel_init=initializers.kernel(zero=zero_init),
        bias_init=initializers.bias(in_dim, zero=zero_init),
        dtype=dtype,
        param_dtype=jnp.float32,
        dot_general=cpu_dense.dot_general,
        rngs=rngs,
    )


class Conv(nnx.Module):
    """2-D convolution [B, H, W, in] -> [B, H', W', out]; kernel [kh, kw, in, out].

    `padding=None` is torch's `padding=k//2` on both sides (SAME would pad only the end at
    stride 2). A 1x1 convolution is computed as a matrix product. `doubles` repeats every pixel
    2x2 before a 3x3 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int] = (3, 3),
        *,
        stride: int = 1,
        padding: forms.Padding | None = None,
        doubles: bool = False,
        zero_init: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kh, kw = kernel_size
        init = initializers.kernel(zero=zero_init)
        bias_init = initializers.bias(kh * kw * in_channels, zero=zero_init)
        self.kernel = nnx.Param(init(rngs.params(), (kh, kw, in_channels, out_channels)))
        self.bias = nnx.Param(bias_init(rngs.params(), (out_channels,)))
        self.stride = stride
        self.padding = ((kh // 2, kh // 2), (kw // 2, kw // 2)) if padding is None else padding
        self.doubles, self.dtype = doubles, dtype
        if doubles and (kernel_size, stride, padding) != ((3, 3), 1, None):
            raise ValueError("only a plain 3x3 convolution can double the picture before it")

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """Convolves in the compute dtype."""
        x = x_BHWC.astype(self.dtype)
        kernel = self.kernel[...].astype(self.dtype)
        bias = self.bias[...].astype(self.dtype)
        if self.doubles:
            y = upsampling.conv3x3(x, kernel)
        elif kernel.shape[:2] == (1, 1) and self.stride == 1 and not any(map(any, self.padding)):
            y = cpu_dense.matmul(x, kernel[0, 0])
        else:
            y = conv.conv2d(x, kernel, self.stride, self.padding)
        return y + bias.reshape(1, 1, 1, -1)


class Downsample(nnx.Module):
    """Stride-2 3x3 conv, one pixel of zeros on every side. Source: openaimodel.Downsample."""

    def __init__(self, channels: int, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.op = Conv(channels, channels, stride=2, dtype=dtype, rngs=rngs)

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H/2, W/2, C]."""
        return self.op(x_BHWC)


class Upsample(nnx.Module):
    """Nearest x2, then a 3x3 convolution. Source: openaimodel.Upsample."""

    def __init__(self, channels: int, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.conv = Conv(channels, channels, doubles=True, dtype=dtype, rngs=rngs)

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, 2H, 2W, C]."""
        return self.conv(x_BHWC)
