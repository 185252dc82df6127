"""MM-Diffusion's super-resolution of frames, 64x64 -> 256x256.

B clips, T frames, H W C image.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import mm_super_resolution as sr_config
from foley_jax.bench import case, weights
from foley_jax.bench.peers import torch_side
from foley_jax.diffusion import schedule as schedule_lib
from foley_jax.diffusion.samplers import ddim
from foley_jax.mm_diffusion.models import super_resolution
from foley_jax.mm_diffusion.sampling import upscaling

KIND = "mm_diffusion/super_resolution"


def model_config(size: str) -> dict[str, Any]:
    """`config.model`, narrower where it is not "paper"; "tiny" has two levels, too."""
    model = sr_config.get_config().model.to_dict()
    model["remat"] = False
    if size != "paper":
        model["model_channels"] = 32
    if size == "tiny":
        model.update({"channel_mult": (1, 2), "num_res_blocks": 1, "attention_downsamples": (2,)})
    return model


def sr_sample(ask: case.Ask) -> Iterator[case.Case]:
    """Frames of one clip by DDIM, 25 evaluations (4 for "tiny")."""
    fields = model_config(ask.size)
    network = weights.network(
        lambda keys: super_resolution.from_config(fields, dtype=ask.dtype, rngs=keys)
    )
    on_cpu = jax.default_backend() == "cpu"
    side, steps = ask.of(tiny=8, small=64, paper=64), ask.of(tiny=4, small=25, paper=25)
    factor = upscaling.FACTOR
    for frames in ask.of(tiny=(1,), small=(1,), paper=(1,) if on_cpu else (16,)):
        rng = np.random.default_rng(0)
        low = rng.uniform(-1, 1, (1, frames, side, side, 3)).astype(np.float32)

        def made(state, low_BTHWC, key, frames=frames):
            return upscaling.upscale(
                network.module(state),
                low_BTHWC,
                jax.random.wrap_key_data(key),
                num_steps=steps,
                frames_at_once=frames,
            )

        key = jax.random.key(1)
        noise = np.asarray(upscaling.noise_for(jnp.asarray(low), key, factor=factor))
        args = (network.state, jnp.asarray(low), jax.random.key_data(key))
        yield case.Case(
            "sr_sample",
            f"{frames} frames of {side}x{side}",
            ask.size,
            case.Program(jax.jit(made), args),
            frames,
            "frame",
            _peers(ask, network.state, fields, low, noise, steps),
            tolerance=ask.tolerance(2e-2, 1.0),
        )


def _peers(
    ask: case.Ask,
    state: Mapping[str, Any],
    fields: Mapping[str, Any],
    low_BTHWC: np.ndarray,
    noise_BHWC: np.ndarray,
    steps: int,
) -> dict[str, case.Peer]:
    if not ask.peers or torch_side.absent():
        return {}
    from foley_jax.bench.peers import solvers
    from foley_jax.bench.peers import super_resolution as peer

    module = torch_side.placed(peer.network(weights.official(KIND, state), fields), ours=ask.dtype)
    low_BHWC = torch_side.tensor(low_BTHWC[0], ours=ask.dtype)
    frames, channels = low_BTHWC.shape[1], low_BTHWC.shape[-1]
    x_BHWC = torch_side.tensor(np.repeat(noise_BHWC, frames, axis=0))
    schedule = schedule_lib.linear()
    steps_N = ddim.strided_steps(schedule, steps, 0)[::-1]
    times = np.asarray(schedule.model_times)[steps_N]
    abar = np.asarray(schedule.alphas_cumprod, np.float64)[steps_N]
    ones = torch_side.tensor(np.ones(frames, np.float32))

    def sampled(module):
        eps = lambda x, time: module(x, low_BHWC, ones * time)[..., :channels]  # noqa: E731
        return solvers.ddim(eps, x_BHWC, times, abar)

    return torch_side.both(sampled, module, output=lambda output: torch_side.array(output)[None])
