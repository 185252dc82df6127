"""Networks of latent diffusion by themselves: one U-Net forward, one decoding.

B windows, H W latent rows and columns, L features, D their width.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import ldm as ldm_config
from foley_jax.bench import case, weights
from foley_jax.bench.peers import stable_diffusion, torch_side
from foley_jax.diff_foley.models import autoencoder, unet

LATENT = (16, 64)  # of 8.2 s: 128 mels by 512 frames, eighths
ROWS = 32  # features of such a window


def model_config(size: str) -> dict[str, Any]:
    """`config.model` of configs/ldm.py: for "small" 0.4 of the widths; "tiny" is shallow, too.

    The demo's network has parts that Stable Diffusion lacks, and hence no peer.
    """
    model = ldm_config.get_config().model.to_dict()
    model["unet"]["remat"] = False
    if size == "paper":
        return model
    width, context, ch = {"tiny": (32, 32, 32), "small": (128, 256, 64)}[size]
    model["unet"].update({"model_channels": width, "context_dim": context})
    model["autoencoder"]["ch"] = ch
    model["conditioner"]["out_dim"] = context
    if size == "tiny":
        model["unet"].update({"channel_mult": (1, 2), "attention_downsamples": (1,)})
        model["autoencoder"]["num_res_blocks"] = 1
    return model


def latent(size: str) -> tuple[int, int]:
    """Features and columns."""
    return (8, 8) if size == "tiny" else LATENT


def inputs(seed: int, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Standard normal arrays."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def unet_forward(ask: case.Ask) -> Iterator[case.Case]:
    """One prediction at latents of 8.2 s, batch 1 and 4."""
    fields = model_config(ask.of(tiny="tiny", small="paper", paper="paper"))["unet"]
    network = weights.network(lambda keys: unet.from_config(fields, dtype=ask.dtype, rngs=keys))
    run = jax.jit(lambda state, *args: network.module(state)(*args))
    module = _unet_peer(ask, network.state, fields)
    for batch in ask.of(tiny=(1,), small=(1,), paper=(1, 4)):
        given = inputs(
            1,
            x_BHWC=(batch, *latent(ask.size), fields["in_channels"]),
            context_BLD=(batch, ROWS, fields["context_dim"]),
        )
        t_B = np.linspace(959.04, 40.0, batch, dtype=np.float32)
        args = (given["x_BHWC"], t_B, given["context_BLD"])
        yield case.Case(
            "unet_forward",
            f"batch {batch}",
            ask.size,
            case.Program(run, (network.state, *map(jnp.asarray, args))),
            batch,
            "window",
            _unet_peers(ask, module, args),
            # float32: sums in another order, through 25 blocks
            tolerance=ask.tolerance(1e-3, 0.3),
        )


def _unet_peer(ask: case.Ask, state: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
    if not ask.peers or stable_diffusion.absent():
        return None
    official = weights.official("diff_foley/ldm", {"unet": state})
    return stable_diffusion.unet(official, fields, ours=ask.dtype)


def _unet_peers(ask: case.Ask, module: Any, args: tuple[np.ndarray, ...]) -> dict[str, case.Peer]:
    if module is None:
        return {}
    x_BHWC, t_B, context_BLD = args
    return torch_side.both(
        lambda unet, x, t, context: unet(x, t, context, return_dict=False)[0],
        module,
        torch_side.images(x_BHWC, ours=ask.dtype),
        torch_side.tensor(t_B),
        torch_side.tensor(context_BLD, ours=ask.dtype),
        output=torch_side.channels_last,
    )


def vae_decode(ask: case.Ask) -> Iterator[case.Case]:
    """Latents of 8.2 s to mel images."""
    fields = model_config(ask.of(tiny="tiny", small="paper", paper="paper"))["autoencoder"]
    network = weights.network(
        lambda keys: autoencoder.from_config(fields, dtype=ask.dtype, rngs=keys)
    )
    run = jax.jit(lambda state, z_BHWC: network.module(state).decode(z_BHWC))
    module = None
    if ask.peers and not stable_diffusion.absent():
        official = weights.official("diff_foley/ldm", {"autoencoder": network.state})
        module = stable_diffusion.autoencoder(official, fields, ours=ask.dtype)
    sides = ask.of(tiny=(8, 8), small=(16, 16), paper=LATENT)
    for batch in ask.of(tiny=(1,), small=(1,), paper=(1,)):
        z_BHWC = inputs(2, z=(batch, *sides, fields["z_channels"]))["z"]
        peers = {}
        if module is not None:
            peers = torch_side.both(
                lambda vae, z: vae.decode(z, return_dict=False)[0],
                module,
                torch_side.images(z_BHWC, ours=ask.dtype),
                output=torch_side.channels_last,
            )
        yield case.Case(
            "vae_decode",
            f"batch {batch}",
            ask.size,
            case.Program(run, (network.state, jnp.asarray(z_BHWC))),
            batch,
            "window" if sides == LATENT else f"latent of {sides[0]}x{sides[1]}",
            peers,
            tolerance=ask.tolerance(1e-3, 0.3),
        )
