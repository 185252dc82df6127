"""I3D: 400 Kinetics logits of a short video; FVD and KVD compare their distributions.

B batch, T frames, H W space, C channels.
Source: MM-Diffusion evaluations/fvd/pytorch_i3d.py `InceptionI3d`, evaluations/fvd/fvd.py.
"""

from collections.abc import Mapping, Sequence
import math

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.evaluation.networks import convolution

CLASSES = 400  # of Kinetics
SIZE = 224  # pixels
MIN_FRAMES = 9  # two are left for the last mean
# widths: 1x1; 3x3 before and after; second 3x3 before and after; after the pool
_MIXED: Mapping[str, Sequence[int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
# pools that stand before a block: window and stride
_POOLS: Mapping[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}
_LAST_WINDOW = (2, 7, 7)


def _pool(x: jax.Array, window: Sequence[int], stride: Sequence[int]) -> jax.Array:
    """Max pool over zeros at the edges, which torch's own padding would leave out."""
    return convolution.max_pool(
        x, window, stride, convolution.same(x.shape[1:-1], window, stride), fill=0.0
    )


class Unit(nnx.Module):
    """3-D convolution over TensorFlow's SAME padding, BatchNorm, ReLU. Source: `Unit3D`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, rngs: nnx.Rngs
    ):
        self.size, self.stride = (kernel,) * 3, (stride,) * 3
        self.unit = convolution.ConvNorm(inputs, outputs, self.size, stride=stride, rngs=rngs)

    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        return self.unit(x_BTHWC, convolution.same(x_BTHWC.shape[1:-1], self.size, self.stride))


class Mixed(nnx.Module):
    """Four branches side by side. Source: `InceptionModule`."""

    def __init__(self, inputs: int, widths: Sequence[int], *, rngs: nnx.Rngs):
        one, three_in, three, double_in, double, pooled = widths
        self.b0 = Unit(inputs, one, rngs=rngs)
        self.b1a = Unit(inputs, three_in, rngs=rngs)
        self.b1b = Unit(three_in, three, 3, rngs=rngs)
        self.b2a = Unit(inputs, double_in, rngs=rngs)
        self.b2b = Unit(double_in, double, 3, rngs=rngs)
        self.b3b = Unit(inputs, pooled, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        pooled = self.b3b(_pool(x, (3, 3, 3), (1, 1, 1)))
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), pooled)
        return jnp.concatenate(branches, axis=-1)


class I3d(nnx.Module):
    """Inception-v1 with kernels in three axes."""

    def __init__(self, num_classes: int = CLASSES, *, rngs: nnx.Rngs):
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2, rngs=rngs)
        self.Conv3d_2b_1x1 = Unit(64, 64, rngs=rngs)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3, rngs=rngs)
        previous = 192
        for name, widths in _MIXED.items():
            setattr(self, name, Mixed(previous, widths, rngs=rngs))
            previous = widths[0] + widths[2] + widths[4] + widths[5]
        self.logits = convolution.Conv(previous, num_classes, (1, 1, 1), rngs=rngs)

    def endpoints(self, x_BTHWC: jax.Array) -> dict[str, jax.Array]:
        """The output of every block by its official name, in order; for comparison and study."""
        found, x = {}, x_BTHWC.astype(jnp.float32)
        for name in ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3", *_MIXED):
            if name in _POOLS:
                x = _pool(x, *_POOLS[name])
                found[f"before {name}"] = x
            x = getattr(self, name)(x)
            found[name] = x
        return found

    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        """Kinetics logits, the mean over time.

        Args:
          x_BTHWC: float [B, T, 224, 224, 3] in [-1, 1] from `prepare`; T >= 9.
        Returns:
          float32 [B, 400].
        Raises:
          ValueError: another size, or too few frames.
        """
        if x_BTHWC.ndim != 5 or x_BTHWC.shape[2:] != (SIZE, SIZE, 3):
            raise ValueError(f"video has shape {x_BTHWC.shape}, expected [B, T, 224, 224, 3]")
        if x_BTHWC.shape[1] < MIN_FRAMES:
            raise ValueError(f"video has {x_BTHWC.shape[1]} frames, I3D needs {MIN_FRAMES}")
        x = self.endpoints(x_BTHWC)["Mixed_5c"]
        x = convolution.average_pool(x, _LAST_WINDOW, (1, 1, 1), ((0, 0),) * 3)
        return self.logits(x).mean(axis=(1, 2, 3))  # [B, T/8 - 1, 1, 1, 400] -> [B, 400]


def prepare(video_BTHWC: jax.Array) -> jax.Array:
    """FVD's images: the short side brought to 224 pixels, the middle, values in [-1, 1].

    Bilinear without antialias, as the official code; images larger than 224 pixels alias.

    Args:
      video_BTHWC: uint8 [B, T, H, W, 3].
    Returns:
      float32 [B, T, 224, 224, 3].
    Raises:
      ValueError: not uint8 images.
    Source: fvd.py `preprocess`.
    """
    if video_BTHWC.dtype != jnp.uint8 or video_BTHWC.ndim != 5 or video_BTHWC.shape[-1] != 3:
        raise ValueError(
            f"video is {video_BTHWC.dtype} {video_BTHWC.shape}, expected uint8 [B, T, H, W, 3]"
        )
    b, t, height, width, c = video_BTHWC.shape
    scale = SIZE / min(height, width)
    if height < width:
        size = (SIZE, math.ceil(width * scale))
    else:
        size = (math.ceil(height * scale), SIZE)
    x = video_BTHWC.astype(jnp.float32) / 255.0
    x = jax.image.resize(x, (b, t, *size, c), "linear", antialias=False)
    top, left = ((side - SIZE) // 2 for side in size)
    return (x[:, :, top : top + SIZE, left : left + SIZE] - 0.5) * 2.0
