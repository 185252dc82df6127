"""Blocks with batch statistics whose inner activations are made again in the backward pass.

Kept are the outputs of convolutions, which are dear to make, and the statistics of norms, which
take a pass over them; norms, ReLUs and sums are made again from these, in the same passes that
need them.
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import nnx
import jax
from jax import ad_checkpoint

_KEPT = "kept"


def kept(x: jax.Array) -> jax.Array:
    """Marks what `run` shall not make twice."""
    return ad_checkpoint.checkpoint_name(x, _KEPT)


def run(fn: Callable[..., jax.Array], module: nnx.Module, *args: jax.Array) -> jax.Array:
    """`fn(module, *args)`, its activations but the marked ones made again for the gradients.

    The module's batch statistics are updated as without.
    """
    graph, statistics, rest = nnx.split(module, nnx.BatchStat, ...)
    policy = jax.checkpoint_policies.save_only_these_names(_KEPT)

    @functools.partial(jax.checkpoint, policy=policy)
    def pure(statistics: Any, rest: Any, *args: jax.Array) -> tuple[jax.Array, Any]:
        inner = nnx.merge(graph, statistics, rest)
        y = fn(inner, *args)
        return y, nnx.state(inner, nnx.BatchStat)

    y, statistics = pure(statistics, rest, *args)
    nnx.update(module, statistics)
    return y
