"""Blocks with batch statistics whose inner activations are made again in the backward pass."""

from collections.abc import Callable
import functools
from typing import Any

from flax import nnx
import jax
from jax import ad_checkpoint

_KEPT = "kept"
POLICIES = {
    "norms": jax.checkpoint_policies.save_only_these_names(_KEPT),
    "blocks": jax.checkpoint_policies.nothing_saveable,
}


def kept(x: jax.Array) -> jax.Array:
    """Marks what `run` by "norms" shall not make twice."""
    return ad_checkpoint.checkpoint_name(x, _KEPT)


def run(
    policy: str, fn: Callable[..., jax.Array], module: nnx.Module, *args: jax.Array
) -> jax.Array:
    """`fn(module, *args)`, its inner activations made again for the gradients.

    The module's batch statistics are updated as without.

    Args:
      policy: "norms" keeps what is marked, the outputs of convolutions, which are dear to make,
        and the statistics of norms, which take a pass over them; "blocks" keeps nothing.
    Raises:
      ValueError: unknown policy.
    """
    if policy not in POLICIES:
        raise ValueError(f"remat is {policy!r}, expected '' or one of {', '.join(POLICIES)}")
    graph, statistics, rest = nnx.split(module, nnx.BatchStat, ...)

    @functools.partial(jax.checkpoint, policy=POLICIES[policy])
    def pure(statistics: Any, rest: Any, *args: jax.Array) -> tuple[jax.Array, Any]:
        inner = nnx.merge(graph, statistics, rest)
        y = fn(inner, *args)
        return y, nnx.state(inner, nnx.BatchStat)

    y, statistics = pure(statistics, rest, *args)
    nnx.update(module, statistics)
    return y
