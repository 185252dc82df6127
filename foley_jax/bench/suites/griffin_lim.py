"""Griffin-Lim by itself, from the same phases on both sides.

B batch, T frames, K frequency bins.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from configs import ldm as ldm_config
from foley_jax.bench import case
from foley_jax.bench.peers import torch_side
from foley_jax.media import specs
from foley_jax.vocoders import griffin_lim as vocoder

ITERATIONS, MOMENTUM = 16, 0.99  # of `griffin_lim.GriffinLim`


def griffin_lim(ask: case.Ask) -> Iterator[case.Case]:
    """16 iterations over audio clips of 8.2 s."""
    spec = specs.AudioSpec(**ldm_config.get_config().audio)
    frames = ask.of(tiny=32, small=512, paper=512)
    options = {"iterations": ITERATIONS, "momentum": MOMENTUM}
    run = jax.jit(
        lambda magnitude, phase: vocoder.griffin_lim(magnitude, spec, phase_BTK=phase, **options)
    )
    for batch in ask.of(tiny=(2,), small=(1, 8), paper=(1, 8, 64)):
        rng = np.random.default_rng(0)
        shape = (batch, frames, spec.n_fft // 2 + 1)
        magnitude = np.abs(rng.standard_normal(shape, np.float32))
        phase = rng.uniform(-np.pi, np.pi, shape).astype(np.float32)
        args = (jnp.asarray(magnitude), jnp.asarray(phase))
        yield case.Case(
            "griffin_lim",
            f"batch {batch}",
            ask.size,
            case.Program(run, args),
            batch,
            "audio",
            _peers(ask, magnitude, phase, spec, options),
            # 16 rounds through angles of numbers that may be close to zero
            tolerance=5e-2,
            note="transforms are not counted as FLOPs",
        )


def _peers(ask, magnitude_BTK, phase_BTK, spec, options) -> dict[str, case.Peer]:
    if not ask.peers or torch_side.absent():
        return {}
    from foley_jax.bench.peers import vocoder as peer

    magnitude, phase = (
        torch_side.tensor(x).transpose(1, 2).contiguous() for x in (magnitude_BTK, phase_BTK)
    )
    call = lambda: peer.griffin_lim(magnitude, phase, n_fft=spec.n_fft, hop=spec.hop, **options)  # noqa: E731
    return {"torch": torch_side.peer(call, torch_side.array)}
