"""Align Acc: the share of audio that the evaluation classifier finds in time with their video.

N items, B batch, F mel bins, T mel frames, L features, D their width.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diff_foley.models import alignment
from foley_jax.runtime import seed_keys

NUM_FRAMES = 512  # 8.192 s at hop 256
NUM_FEATURES = 32  # 8 s at 4 features per second


@dataclasses.dataclass(frozen=True)
class AlignAcc:
    """Result of `align_acc`.

    Attributes:
      accuracy: share of items judged aligned, in [0, 1].
      prob_N: float32, the classifier's probability of every item.
    """

    accuracy: float
    prob_N: np.ndarray


def accuracy(prob_N: np.ndarray) -> float:
    """Share of probabilities that round to 1; exactly 0.5 rounds to 0, as in the source."""
    return float((np.round(prob_N) == 1).mean())


def align_acc(
    model: alignment.AlignmentModel,
    mels_NFT: Sequence[np.ndarray],
    features_NLD: Sequence[np.ndarray],
    *,
    seed: int = 0,
    batch_size: int = 16,
    num_frames: int = NUM_FRAMES,
    num_features: int = NUM_FEATURES,
) -> AlignAcc:
    """Judges generated mels against the CAVP features of the videos they were made for.

    As the official script: the mel is cut to its first frames, encoded to a posterior *sample*
    times the latent scale, and judged at step 0 with the conditioner's view of the first features.
    Every item has its own noise, a function of the seed and its place, so the result does not
    depend on the batch size. The script draws all noise from torch's generator instead, hence
    agrees in distribution only.

    Args:
      model: an evaluation classifier, with autoencoder.
      mels_NFT: float arrays [F, >= num_frames] in [0, 1], in the model's front end (official: 128
        bins, hop 256 at 16 kHz).
      features_NLD: float arrays [>= num_features, D], unit CAVP features from the video's start.
      seed: of the posterior's noise.
      batch_size: items judged together.
    Raises:
      ValueError: no items, unequal numbers, or an item that is too short.
    Source: Diff-Foley evaluation/align_acc.py:67-87, dataset.py:87-109.
    """
    mels = _cut("mel", mels_NFT, num_frames, axis=1)
    features = _cut("features", features_NLD, num_features, axis=0)
    if len(mels) != len(features) or not len(mels):
        raise ValueError(
            f"{len(mels)} mels and {len(features)} sets of features; expected as many, not 0"
        )
    graphdef, state = nnx.split(model)
    state = nnx.to_pure_dict(state)
    found, key = [], seed_keys.key(seed)
    for start in range(0, len(mels), batch_size):
        # the last batch is filled up with its last item: one shape, one compilation
        item_B = np.minimum(np.arange(start, start + batch_size), len(mels) - 1)
        args = (mels[item_B], features[item_B], item_B.astype(np.int32))
        prob_B = _probabilities(graphdef, state, key, *args)
        found.append(np.asarray(prob_B)[: len(mels) - start])
    prob_N = np.concatenate(found)
    return AlignAcc(accuracy(prob_N), prob_N)


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(
    graphdef: nnx.GraphDef,
    state: Any,
    key: jax.Array,
    mel_BFT: jax.Array,
    features_BLD: jax.Array,
    item_B: jax.Array,
) -> jax.Array:
    """The classifier's probabilities [B] of the items numbered `item_B`."""
    model = nnx.merge(graphdef, state)

    def encode(mel_FT: jax.Array, item: jax.Array) -> jax.Array:
        return model.encode_mel(mel_FT[None], key=jax.random.fold_in(key, item))[0]

    x_BHWC = jax.vmap(encode)(mel_BFT, item_B)
    return jax.nn.sigmoid(model.logits(x_BHWC, jnp.zeros(len(item_B)), features_BLD))


def _cut(name: str, arrays: Sequence[np.ndarray], size: int, *, axis: int) -> np.ndarray:
    """The first `size` along an axis of every array, float32, stacked."""
    for number, array in enumerate(arrays):
        if np.ndim(array) != 2 or array.shape[axis] < size:
            raise ValueError(
                f"{name} of item {number}: shape {np.shape(array)}, expected two axes and at least "
                f"{size} along axis {axis}"
            )
    kept = [np.take(array, range(size), axis=axis) for array in arrays]
    return np.stack(kept).astype(np.float32) if kept else np.zeros((0, 0, 0), np.float32)
