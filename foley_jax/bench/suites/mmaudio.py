"""MMAudio's flow network small_16k: one evaluation for windows of 8 s."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from foley_jax.bench import case, weights
from foley_jax.bench.peers import torch_side
from foley_jax.layers import configured
from foley_jax.mmaudio import rates
from foley_jax.mmaudio.models import flow_network

KIND = "mmaudio/small_16k"
_TINY = {"width": 64, "num_heads": 2, "depth": 4, "fused_depth": 2}


def mmaudio_forward(ask: case.Ask) -> Iterator[case.Case]:
    """The velocity at one time; conditions are made once for all steps, and not timed."""
    fields = configured.defaults(flow_network.FlowNetwork) | (_TINY if ask.size == "tiny" else {})
    fields["dtype"] = ask.dtype
    network = weights.network(
        lambda keys: configured.build(flow_network.FlowNetwork, fields, rngs=keys)
    )
    run = jax.jit(lambda state, *args: network.module(state)(*args))
    prepare = jax.jit(lambda state, *args: network.module(state).preprocess_conditions(*args))
    module = _peer(ask, network.state, fields["num_heads"])
    for batch in ask.of(tiny=(2,), small=(1, 4), paper=(1, 4)):
        told, latent_BNC, t_B = _inputs(fields, batch)
        peers = {}
        if module is not None:
            given = module.preprocess(*(torch_side.tensor(x, ours=ask.dtype) for x in told))
            args = (torch_side.tensor(latent_BNC, ours=ask.dtype), torch_side.tensor(t_B), given)
            peers = torch_side.both(
                lambda module, *args: module(*args), module, *args, output=torch_side.array
            )
        yield case.Case(
            "mmaudio_forward",
            f"batch {batch}",
            ask.size,
            case.Program(run, (network.state, latent_BNC, t_B, prepare(network.state, *told))),
            batch,
            "window",
            peers,
            tolerance=ask.tolerance(1e-3, 0.3),
        )


def _inputs(
    fields: Mapping[str, Any], batch: int
) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """Features of frames, segments and text; latents; times."""
    rng, lengths = np.random.default_rng(0), rates.RATES["16k"].lengths(rates.WINDOW_S)
    shapes = (
        (lengths.clip, fields["clip_dim"]),
        (lengths.sync, fields["sync_dim"]),
        (fields["text_length"], fields["text_dim"]),
        (lengths.latents, fields["latent_dim"]),
    )
    *told, latent_BNC = (rng.standard_normal((batch, *shape), np.float32) for shape in shapes)
    return tuple(told), latent_BNC, np.linspace(0.1, 0.9, batch, dtype=np.float32)


def _peer(ask: case.Ask, state: Mapping[str, Any], num_heads: int) -> Any:
    """The network in torch, or None."""
    if not ask.peers or torch_side.absent():
        return None
    from foley_jax.bench.peers import mmaudio as peer

    module = peer.FlowNetwork(weights.official(KIND, state), num_heads)
    return torch_side.placed(module.eval(), ours=ask.dtype)
