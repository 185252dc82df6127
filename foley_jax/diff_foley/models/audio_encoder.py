"""CAVP's audio encoder: PANNs Cnn14 that keeps the time axis.

Axes: B batch, F mel bins, T mel frames, C channels.
Source: inference/model/cavp_modules.py `Cnn14`.
"""

from collections.abc import Sequence

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.layers import batch_norm, conv_block, patch_norm

_XAVIER = nnx.initializers.xavier_uniform()
_POOLS = ((2, 2), (2, 2), (2, 2), (2, 2), (1, 2), (1, 1))  # (time, frequency) per block
TIME_REDUCTION = 16  # product of the official time pools
_REDUCTIONS = {"blocks": (1, 2, 4, 8, 16), "patch4": (4, 8, 16)}
_average_pool = conv_block.average_pool


def _smooth_time(x_BTC: jax.Array) -> jax.Array:
    """Max plus mean over 3 neighbours in time; the mean counts the zeros beyond the ends."""
    pad = ((0, 0), (1, 1), (0, 0))
    largest = nnx.max_pool(x_BTC, (3,), (1,), padding=((1, 1),))
    x = jnp.pad(x_BTC, pad)
    return largest + (x[:, :-2] + x[:, 1:-1] + x[:, 2:]) / 3.0


class Cnn14(nnx.Module):
    """Six conv blocks, mean over frequency, two passes of one dense layer, projection."""

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 256, 512, 1024, 2048),
        num_mels: int = 128,
        embed_dim: int = 512,
        dropout: float = 0.2,
        stem: str = "blocks",
        time_reduction: int = TIME_REDUCTION,
        *,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Args:
        channels: width of the six blocks, or with the patch stem of the stem and blocks 3 to 6.
        num_mels: mel bins of the input.
        embed_dim: width of a feature.
        dropout: rate after every block while training.
        stem: "blocks" (official) or "patch4": one linear map of 4x4 mel patches in place of
          blocks 1 and 2, which take most of the time of a small network.
        time_reduction: mel frames of one feature; below the official 16 the last time pools are
          left out, for features at the rate of a video of more frames.
        dtype: compute dtype; parameters are float32.
        """
        if stem not in _REDUCTIONS:
            raise ValueError(f"stem is {stem!r}; known stems: blocks, patch4")
        if time_reduction not in _REDUCTIONS[stem]:
            known = ", ".join(map(str, _REDUCTIONS[stem]))
            raise ValueError(
                f"time_reduction is {time_reduction}, expected one of {known} with stem {stem!r}"
            )
        self.first_block = 1 if stem == "blocks" else 3
        widths = list(channels)
        expected = len(_POOLS) if stem == "blocks" else len(_POOLS) - 1
        if len(widths) != expected:
            raise ValueError(f"{len(widths)} channel widths, stem {stem!r} needs {expected}")
        self.num_mels, self.embed_dim, self.dtype = num_mels, embed_dim, dtype
        self.time_reduction = time_reduction
        self.bn = batch_norm.BatchNorm(num_mels, two_pass=True, dtype=dtype, rngs=rngs)
        options = {"dtype": dtype, "rngs": rngs}
        previous = 1 if stem == "blocks" else widths.pop(0)
        self.stem = (
            None
            if stem == "blocks"
            else patch_norm.PatchNorm(1, previous, 4, kernel_init=_XAVIER, **options)
        )
        for index, width in enumerate(widths, start=self.first_block):
            setattr(self, f"conv_block{index}", conv_block.ConvBlock(previous, width, **options))
            previous = width
        self.dropout = nnx.Dropout(dropout)
        dense = {"kernel_init": _XAVIER, "dtype": dtype, "rngs": rngs}
        self.fc1 = nnx.Linear(previous, previous, **dense)
        self.final_project = nnx.Linear(previous, embed_dim, **dense)

    def apply_norm(self, mel_BFT: jax.Array, *, train: bool) -> jax.Array:
        """[B, F, T] -> [B, T, F, 1], every mel bin normalised over batch and time."""
        x_BTF = mel_BFT.swapaxes(1, 2).astype(self.dtype)
        return self.bn(x_BTF, train=train)[..., None]

    def apply_block(
        self, index: int, x_BTFC: jax.Array, *, train: bool, key: jax.Array | None = None
    ) -> jax.Array:
        """Block `index` (1-based, official numbering), with its pool and dropout."""
        time, frequency = _POOLS[index - 1]
        pool = (time if 2**index <= self.time_reduction else 1, frequency)
        x = getattr(self, f"conv_block{index}")(x_BTFC, pool, train=train)
        if not train or self.dropout.rate == 0.0:
            return x
        if key is None:
            raise ValueError("training with dropout needs key=, a jax.random key")
        return self.dropout(x, deterministic=False, rngs=jax.random.fold_in(key, index))

    def __call__(
        self, mel_BFT: jax.Array, *, train: bool = False, key: jax.Array | None = None
    ) -> jax.Array:
        """One feature for every `time_reduction` mel frames, officially 16.

        Args:
          mel_BFT: float [B, num_mels, T], log-mel in [0, 1], T >= `time_reduction`.
          train: use and update batch statistics, and drop activations with `key`.
          key: PRNG key of the dropout; needed only while training with a rate above 0.
        Returns:
          [B, T // time_reduction, embed_dim] in `dtype`.
        """
        if mel_BFT.ndim != 3 or mel_BFT.shape[1] != self.num_mels:
            raise ValueError(f"mel has shape {mel_BFT.shape}, expected [B, {self.num_mels}, T]")
        if mel_BFT.shape[2] < self.time_reduction:
            raise ValueError(
                f"mel has {mel_BFT.shape[2]} frames, expected >= {self.time_reduction}"
            )
        x = self.apply_norm(mel_BFT, train=train)
        if self.stem is not None:
            x = self.stem(x, train=train, relu=True)
        for index in range(self.first_block, len(_POOLS) + 1):
            x = self.apply_block(index, x, train=train, key=key)
        x = _smooth_time(x.mean(axis=2))  # [B, T', F', C] -> [B, T', C]
        # the official network applies the same dense layer twice
        x = nnx.relu(self.fc1(x))
        x = nnx.relu(self.fc1(x))
        return self.final_project(x)
