"""MM-Diffusion's base model: one prediction, whole clips, one update.

B clips, F frames, H W image, L audio samples, N shifted windows.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import mm_diffusion as mm_config
from foley_jax.bench import case, weights
from foley_jax.bench.peers import torch_side
from foley_jax.bench.suites import steps
from foley_jax.diffusion import gaussian
from foley_jax.diffusion.samplers import ddim
from foley_jax.mm_diffusion.models import coupled_unet
from foley_jax.mm_diffusion.sampling import pipeline, signals, solve
from foley_jax.mm_diffusion.sampling import settings as settings_lib
from foley_jax.runtime import network as network_lib

STEPS = 20  # network evaluations, as the paper's sampler takes
KIND = "mm_diffusion/base"


def stage(ask: case.Ask, *, whole: bool = False) -> ml_collections.ConfigDict:
    """configs/mm_diffusion.py, narrower where it is not "paper".

    Args:
      whole: the paper's network at "small", too.
    """
    config = steps.plain(mm_config.get_config(), ask)
    config.model.remat, config.model.dropout = False, 0.0  # the peer would drop others
    if ask.size == "tiny":
        config.data.num_frames = config.model.num_frames = 4
        config.video.height = config.video.width = 16
        config.model.update(
            {
                "model_channels": 32,
                "head_channels": 32,
                "channel_mult": (1, 2),
                "num_res_blocks": 1,
                "cross_attention_downsamples": (2,),
                "cross_attention_windows": (2,),
                "video_attention_downsamples": (2,),
            }
        )
    elif ask.size == "small" and not whole:
        config.model.update({"model_channels": 32, "head_channels": 32})
    return config


def clip(config: ml_collections.ConfigDict, batch: int) -> dict[str, np.ndarray]:
    """Standard normal video and audio."""
    frames, side = config.data.num_frames, config.video.height
    length = round(frames / config.video.fps * config.audio.sample_rate_hz)
    rng = np.random.default_rng(0)
    return {
        "video": rng.standard_normal((batch, frames, side, side, 3), np.float32),
        "audio": rng.standard_normal((batch, length, 1), np.float32),
    }


def _network(config: ml_collections.ConfigDict, ask: case.Ask):
    return weights.network(
        lambda keys: coupled_unet.from_config(config.model, dtype=ask.dtype, rngs=keys)
    )


def _peer(ask: case.Ask, state: Mapping[str, Any], config: ml_collections.ConfigDict) -> Any:
    """The network in torch, or None."""
    if not ask.peers or torch_side.absent():
        return None
    from foley_jax.bench.peers import mm_diffusion as peer

    return peer.coupled_unet(weights.official(KIND, state), config.model.to_dict())


def _arrays(output: tuple[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    return torch_side.array(output[0]), torch_side.array(output[1])


def mm_forward(ask: case.Ask) -> Iterator[case.Case]:
    """One prediction for a clip of 1.6 s: 16 frames of 64x64."""
    config = stage(ask, whole=True)
    network = _network(config, ask)
    model = network.module()
    module = _peer(ask, network.state, config)
    module = module if module is None else torch_side.placed(module, ours=ask.dtype)
    run = jax.jit(lambda state, *args: network.module(state)(*args))
    shifts = [limit // 2 for limit in model.shift_limits()]
    x, t_B = clip(config, 1), np.full(1, 500.0, np.float32)
    peers = {}
    if module is not None:
        peers = torch_side.both(
            lambda module, *args: module(*args, shifts),
            module,
            torch_side.tensor(x["video"], ours=ask.dtype),
            torch_side.tensor(x["audio"], ours=ask.dtype),
            torch_side.tensor(t_B),
            output=_arrays,
        )
    args = (x["video"], x["audio"], t_B, np.array(shifts, np.int32))
    yield case.Case(
        "mm_forward",
        "batch 1",
        ask.size,
        case.Program(run, (network.state, *map(jnp.asarray, args))),
        1,
        "clip",
        peers,
        tolerance=ask.tolerance(1e-3, 0.3),
    )


def mm_sample(ask: case.Ask) -> Iterator[case.Case]:
    """Clips from noise by 20 evaluations."""
    config = stage(ask)
    network = _network(config, ask)
    about = pipeline.denoiser_of(config)
    settings = settings_lib.Settings(sampler="ddim", steps=STEPS)
    module = _peer(ask, network.state, config)
    module = module if module is None else torch_side.placed(module, ours=ask.dtype)

    def made(state, keys_B, shift_key):
        keys_B, shift_key = (jax.random.wrap_key_data(x) for x in (keys_B, shift_key))
        model = network.module(state)
        return solve.sample(model, keys_B, shift_key, {}, about=about, settings=settings)

    run = jax.jit(made)
    on_cpu = jax.default_backend() == "cpu"
    for batch in ask.of(tiny=(1,), small=(1,), paper=(1,) if on_cpu else (1, 8)):
        keys_B, shift_key = jax.random.split(jax.random.key(1), batch), jax.random.key(2)
        args = tuple(jax.random.key_data(x) for x in (keys_B, shift_key))
        peers = {}
        if module is not None:
            peers = _sample_peers(ask, network, module, about, keys_B, shift_key)
        yield case.Case(
            "mm_sample",
            f"batch {batch}",
            ask.size,
            case.Program(run, (network.state, *args)),
            batch,
            "clip",
            peers,
            tolerance=ask.tolerance(2e-2, 1.0),
            note="by DDIM, whose 20 evaluations cost what those of the paper's sampler do",
        )


def _sample_peers(ask, network, module, about, keys_B, shift_key) -> dict[str, case.Peer]:
    from foley_jax.bench.peers import solvers

    def noise(key):
        return gaussian.noise_like(dict(about.shapes), key=jax.random.split(key)[0])

    x_T = {name: np.asarray(x)[:, 0] for name, x in jax.vmap(noise)(keys_B).items()}
    steps_N = ddim.strided_steps(about.schedule, STEPS, 0)[::-1]
    times = np.asarray(about.schedule.model_times)[steps_N]
    abar = np.asarray(about.schedule.alphas_cumprod, np.float64)[steps_N]
    model = network.module()
    frames = about.shapes["video"].shape[1]
    shifts = {
        float(t): np.asarray(
            model.draw_shifts(jax.random.fold_in(shift_key, int(t)), frames)
        ).tolist()
        for t in times
    }
    x = {name: torch_side.tensor(value) for name, value in x_T.items()}
    ones = torch_side.tensor(np.ones(len(keys_B), np.float32))

    def sampled(module):
        def eps(x, time):
            parts = (x[name].to(torch_side.dtype(ask.dtype)) for name in ("video", "audio"))
            video, audio = module(*parts, ones * time, shifts[time])
            return {"video": video.float(), "audio": audio.float()}

        return solvers.ddim(eps, x, times, abar)

    return torch_side.both(
        sampled,
        module,
        output=lambda output: {name: torch_side.array(value) for name, value in output.items()},
    )


def mm_train(ask: case.Ask) -> Iterator[case.Case]:
    """One update of the coupled U-Net."""
    config = stage(ask)
    on_cpu = jax.default_backend() == "cpu"
    for batch in ask.of(tiny=(2,), small=(1,), paper=(1,) if on_cpu else (8,)):
        rng, shapes = np.random.default_rng(0), clip(config, batch)
        given = {
            "frames_BFHWC": rng.integers(0, 256, shapes["video"].shape, np.uint8),
            "audio_BL": rng.normal(0.0, 3000.0, shapes["audio"].shape[:2]).astype(np.int16),
        }
        made = steps.Step(config, given)
        yield case.Case(
            "mm_train",
            f"batch {batch}",
            ask.size,
            made.program,
            batch,
            "clip",
            _train_peers(ask, made, given),
            tolerance=ask.tolerance(1e-4, 2e-2),
            output=steps.compared,
            note="without dropout, averaged weights and recomputation on both sides",
        )


def _train_peers(
    ask: case.Ask, made: steps.Step, batch: Mapping[str, np.ndarray]
) -> dict[str, case.Peer]:
    module = _peer(ask, made.whole_state(), made.config)
    if module is None:
        return {}
    from foley_jax.bench.peers import mm_training

    schedule = made.task.schedule
    t_key, noise_key, shift_key, _ = steps.keys(made.config, 4)
    x0 = signals.to_model(*(jnp.asarray(batch[name]) for name in ("frames_BFHWC", "audio_BL")))
    b, frames = x0["video"].shape[:2]
    t_B = np.asarray(gaussian.draw_steps(schedule, b, t_key, train=True))
    model = network_lib.shapes(made.task.build)
    return mm_training.peers(
        module,
        {name: np.asarray(x) for name, x in x0.items()},
        {name: np.asarray(x) for name, x in gaussian.noise_like(x0, key=noise_key).items()},
        np.asarray(schedule.model_times)[t_B],
        np.asarray(schedule.alphas_cumprod)[t_B],
        np.asarray(model.draw_shifts(shift_key, frames)).tolist(),
        made.config.optimizer.to_dict(),
        ours=ask.dtype,
    )
