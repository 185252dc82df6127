"""Conditions of the windows of a tape, made before the first solver step.

Keys and values of cross-attention depend on nothing that changes from step to step. XLA leaves
their projections inside the loop over the steps, so they are made here, once.
Axis letters: N windows in M batches of B; L features of a window, R of a whole video, D width.
"""

from collections.abc import Callable
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.runtime import partition

# of keys and values; the paper's U-Net has 3.2 MB a window in float32, and to make them at every
# step is less than 1 % of it
KEPT_BYTES = 2**28
# of features, half an hour of video: what is made on the way to keys and values is larger, and
# all of it at once would take more memory than all else that grows with a video's length
ROWS_BYTES = 2**24


def of_model(
    model: nnx.Module, features_NLD: jax.Array, batch: int, *, zero_null: bool
) -> tuple[Any, Any]:
    """Conditions of the windows, and the null condition as context of `LatentDiffusion.denoise`.

    Args:
      model: LatentDiffusion.
      features_NLD: features of every window.
      batch: B, windows evaluated at once.
      zero_null: the null condition is zeros behind the conditioner, as in the published notebook,
        instead of the conditioner of zeros.
    Returns:
      For `at`, then `context_of`; and of one batch, [B, ...], the same for all.
    """
    null_1LD = model.conditioner(jnp.zeros_like(features_NLD[:1]))
    null = jnp.zeros_like(null_1LD) if zero_null else null_1LD
    every = features_NLD
    keys_values = lambda features_NLD: model.unet.keys_values(model.conditioner(features_NLD))  # noqa: E731
    if _few(keys_values, features_NLD):
        every, null = keys_values(features_NLD), model.unet.keys_values(null)
    return in_batches(every, batch), _repeated(null, batch)


def context_of(model: nnx.Module, condition: Any) -> Any:
    """Context of `LatentDiffusion.denoise` from what `of_model` has of a batch."""
    return condition if isinstance(condition, list) else model.conditioner(condition)


def of_classifier(
    classifier: nnx.Module, features_NLD: jax.Array, batch: int, raw_features_RD: jax.Array | None
) -> Any:
    """Features for `AlignmentModel.log_prob`, or what it makes of them; for `at`.

    Args:
      classifier: AlignmentModel.
      raw_features_RD: preset "official": every window is judged by all features of its video, which
        have not seen the conditioner.
    """
    if raw_features_RD is not None:
        made = classifier.keys_values(raw_features_RD[None], embed=False)
        return jax.tree.map(lambda a: a[None], _repeated(made, batch))
    few = _few(classifier.keys_values, features_NLD)
    return in_batches(classifier.keys_values(features_NLD) if few else features_NLD, batch)


def in_batches(tree: Any, batch: int) -> Any:
    """[N, ...] -> [M, B, ...], every batch split over the devices."""

    def leaf(a: jax.Array) -> jax.Array:
        return jax.vmap(partition.shard_batch)(a.reshape(-1, batch, *a.shape[1:]))

    return jax.tree.map(leaf, tree)


def at(tree: Any, number: jax.Array) -> Any:
    """[M, B, ...] -> [B, ...], one batch; the only one where there is only one."""
    # an index beyond the end is that of the last
    return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, number, keepdims=False), tree)


def _few(keys_values: Callable[[jax.Array], Any], features_NLD: jax.Array) -> bool:
    """Whether keys and values of all windows, and what they are made from, take little memory."""
    if features_NLD.size * features_NLD.dtype.itemsize > ROWS_BYTES:
        return False
    made = jax.tree.leaves(jax.eval_shape(keys_values, features_NLD))
    return sum(x.size * x.dtype.itemsize for x in made) <= KEPT_BYTES


def _repeated(tree: Any, batch: int) -> Any:
    """[1, ...] -> [B, ...]."""
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (batch, *a.shape[1:])), tree)
