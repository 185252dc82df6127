"""Counts what a function multiplies and adds, from its trace: nothing is compiled.

Matrix products and convolutions alone, two FLOPs for each multiplication with its addition, as
papers count. Unlike the compilers' own counts, a loop counts as often as it runs.
"""

from collections.abc import Callable, Iterator, Sequence
import math
from typing import Any

import jax


def count(fn: Callable, *args: Any) -> float:
    """FLOPs of one call.

    Args:
      fn: traceable; jitted or not.
      *args: pytrees of arrays or ShapeDtypeStructs.
    Returns:
      FLOPs over all devices. What is computed twice (rematerialisation) counts twice. Of a
      `cond` the dearest branch counts, of `platform_dependent` the default; a loop of unknown
      length counts once.
    """
    return of_jaxpr(jax.make_jaxpr(fn)(*args).jaxpr)


def of_jaxpr(
    jaxpr: Any, *, loops: bool = True, branch: Callable[[Sequence[float]], float] = max
) -> float:
    """FLOPs of a jaxpr, inner ones included.

    Args:
      loops: count a loop as often as it runs; else once, and Pallas kernels not at all, as the
        compilers do.
      branch: what a `cond` costs, of the costs of its branches: `max` or `min`.
    """
    return sum(_of_equation(equation, loops, branch) for equation in jaxpr.eqns)


def _of_equation(equation: Any, loops: bool, branch: Callable[[Sequence[float]], float]) -> float:
    name = equation.primitive.name
    if name == "dot_general":
        return _dot(equation)
    if name == "conv_general_dilated":
        return _convolution(equation)
    if name in _CUDNN_ATTENTION:
        return _CUDNN_ATTENTION[name] * _attention(equation)
    inner = [of_jaxpr(x, loops=loops, branch=branch) for x in _inner(equation.params)]
    if not inner:
        return 0.0
    if name == "scan":
        return (equation.params["length"] if loops else 1) * sum(inner)
    if name == "pallas_call":  # its inner shapes are those of one step of the grid
        return math.prod(equation.params["grid_mapping"].grid) * sum(inner) if loops else 0.0
    if name == "cond":
        platforms = equation.params.get("branches_platforms") or ()
        return inner[platforms.index(None)] if None in platforms else branch(inner)
    if name == "shard_map":  # its inner shapes are those of one device
        return equation.params["mesh"].size * sum(inner)
    return sum(inner)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """Every jaxpr among an equation's parameters."""
    for value in params.values():
        for x in value if isinstance(value, tuple | list) else (value,):
            if hasattr(x, "eqns"):
                yield x
            elif hasattr(x, "jaxpr"):
                yield x.jaxpr


# JAX's calls of cuDNN -> their matrix products; the backward pass computes the logits again
_CUDNN_ATTENTION = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 5}


def _attention(equation: Any) -> float:
    """FLOPs of one product of queries [B, T, N, D] and keys [B, S, N, D]."""
    queries, keys = (x.aval.shape for x in equation.invars[:2])
    return 2.0 * math.prod(queries) * keys[1]


def _dot(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    depth = math.prod(left[axis] for axis in contracted)
    return 2.0 * depth * math.prod(equation.outvars[0].aval.shape)


def _convolution(equation: Any) -> float:
    """Zeros that a dilation puts between inputs are not multiplied; those of the padding are."""
    params = equation.params
    kernel = equation.invars[1].aval.shape
    axes = params["dimension_numbers"].rhs_spec  # out, in, then space
    per_output = math.prod(kernel[axis] for axis in axes[1:])
    per_output /= math.prod(params["lhs_dilation"])
    return 2.0 * per_output * math.prod(equation.outvars[0].aval.shape)
