"""Patches of images and videos as tokens.

B batch, T H W frames and pixels, P patches, C channels in, O channels out; channels last.
"""

from collections.abc import Sequence
import math

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels import dispatch
from foley_jax.layers import initializers


class PatchEmbedding(nnx.Module):
    """A convolution whose stride is its kernel, as one matrix product: [B, *space, C] -> [B, P, O].

    Kernel [*patch, in, out], tokens in the order of the axes (row-major). Pixels at the end that
    fill no patch are left out, as the convolution leaves them out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        patch: Sequence[int],
        *,
        use_bias: bool = True,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Args:
        patch: size by axis: (height, width) of images, (frames, height, width) of videos.
        """
        self.patch = tuple(patch)
        shape = (*self.patch, in_channels, out_channels)
        self.kernel = nnx.Param(initializers.kernel()(rngs.params(), shape, jnp.float32))
        bias = initializers.bias(math.prod(shape[:-1]))
        self.bias = nnx.Param(bias(rngs.params(), (out_channels,))) if use_bias else None
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, *space, C] -> [B, P, O].

        Raises:
          ValueError: another number of axes, or not one whole patch.
        """
        space = x.shape[1:-1]
        counts = [n // p for n, p in zip(space, self.patch, strict=False)]
        if len(space) != len(self.patch) or not all(counts):
            raise ValueError(
                f"input is {x.shape}, expected [B, *space, C] with at least {self.patch} of space"
            )
        kept = tuple(slice(n * p) for n, p in zip(counts, self.patch, strict=True))
        x = x[(slice(None), *kept)].astype(self.dtype)
        # [B, n1*p1, n2*p2, C] -> [B, n1, p1, n2, p2, C] -> [B, n1, n2, p1, p2, C]
        pairs = [size for both in zip(counts, self.patch, strict=True) for size in both]
        last = 1 + 2 * len(counts)
        x = x.reshape(x.shape[0], *pairs, x.shape[-1])
        x = x.transpose(0, *range(1, last, 2), *range(2, last, 2), last)
        kernel = self.kernel[...].astype(self.dtype)
        kernel = kernel.reshape(-1, kernel.shape[-1])  # [*patch, in, out] -> [P', out]
        y = dispatch.matmul(x.reshape(x.shape[0], math.prod(counts), -1), kernel)
        if self.bias is None:
            return y
        return y + self.bias[...].astype(self.dtype).reshape(1, 1, -1)
