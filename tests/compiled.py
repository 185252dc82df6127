"""Modules with BatchNorm, filled and run under one compilation each."""

import filled
from flax import nnx, traverse_util
import jax
import jax.numpy as jnp


def build(fn):
    """The module `fn` makes, filled as `filled.module`, with variances and scales near one."""
    graphdef, state = nnx.split(filled.module(fn))
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(state))
    for path, value in flat.items():
        if path[-1] == "logit_scale":
            flat[path] = jnp.full((), 2.0)
        elif path[-1] in ("var", "scale"):
            flat[path] = 1.0 + 0.1 * jnp.abs(value)
    return nnx.merge(graphdef, traverse_util.unflatten_dict(flat))


def run(module, fn, *args):
    """`fn(module, *args)` and the module's state afterwards, as a nested dict."""
    graphdef, state = nnx.split(module)

    @filled.jit
    def call(state, *args):
        fresh = nnx.merge(graphdef, state)
        out = fn(fresh, *args)
        return out, nnx.to_pure_dict(nnx.state(fresh))

    return call(nnx.to_pure_dict(state), *args)


def call(module, *args, **options):
    """`module(*args, **options)`."""
    return run(module, lambda module, *args: module(*args, **options), *args)[0]


def gradient(module, loss):
    """Gradient of `loss(module)` by parameter, as a nested dict."""
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)
    rest = nnx.to_pure_dict(rest)

    def value(params, rest):
        return loss(nnx.merge(graphdef, params, rest))

    return filled.jit(jax.grad(value))(nnx.to_pure_dict(params), rest)
