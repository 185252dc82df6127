"""Costs of sampling as video length, batch and MM-Diffusion's frames double.

N windows, B of them at once.
"""

from collections.abc import Callable, Iterator
import math
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import cavp as cavp_config
from configs import ldm as ldm_config
from configs import mm_diffusion as mm_config
from foley_jax.bench import case, measure, slopes, weights
from foley_jax.diff_foley.sampling import (
    packed_windows,
    solve,
)
from foley_jax.diff_foley.sampling import pipeline as foley_pipeline
from foley_jax.diffusion import windows
from foley_jax.mm_diffusion.sampling import pipeline as mm_pipeline
from foley_jax.mm_diffusion.sampling import settings as mm_settings
from foley_jax.mm_diffusion.sampling import solve as mm_sampling
from foley_jax.runtime import flops
from foley_jax.training import task as task_lib

LENGTH, BATCH, FRAMES = "video length", "batch", "MM-Diffusion frames"  # what is doubled
UNITS = {LENGTH: "s", BATCH: "videos of 8 s", FRAMES: "frames"}
CLIP_S = 8


class Walk:
    """`case.Case.ours` for what is more than one program: from frames, or from nothing, to clips.

    Args:
      call: makes the clips; everything it returns is on the host.
      flops: of its networks, by `foley_jax.runtime.flops`.
    """

    def __init__(self, call: Callable[[], Any], count: Callable[[], float]):
        self._call, self._count = call, count
        self.flops = 0.0

    def compile(self) -> float:
        """Counts, and compiles by a first call; returns that call's seconds."""
        self.flops = self._count()
        began = time.perf_counter()
        self._call()
        return time.perf_counter() - began

    def memory_bytes(self) -> int | None:
        """By how much the process grows in a call; None off Linux."""
        return measure.watched(self._call)[1]

    def __call__(self) -> float:
        """One call; gives nothing to compare."""
        self._call()
        return 0.0


def scaling(ask: case.Ask) -> Iterator[case.Case]:
    """Sampling with the demo's networks, of random weights, at sizes that double."""
    model, config = _foley(ask)
    lengths = ask.of(tiny=(8, 16), small=(8, 16, 32, 64), paper=(8, 16, 32, 64))
    batches = ask.of(tiny=(), small=(1, 2, 4, 8), paper=(1, 2, 4, 8))
    for axis, values in ((LENGTH, lengths), (BATCH, batches)):
        for value in values:
            seconds, count = (value, 1) if axis == LENGTH else (CLIP_S, value)
            yield _case(axis, value, ask, foley_walk(model, config, seconds, count, ask))
    for frames in ask.of(tiny=(), small=(16, 32, 64), paper=(16, 32, 64)):
        yield _case(FRAMES, frames, ask, mm_walk(frames, ask))


def _case(axis: str, value: int, ask: case.Ask, walk: Walk) -> case.Case:
    name = slopes.case_name(axis, value, UNITS[axis])
    return case.Case(slopes.SUITE, name, ask.size, walk, 1, "call")


def _foley(ask: case.Ask) -> tuple[foley_pipeline.DiffFoley, Any]:
    configs = [module.get_config("demo") for module in (ldm_config, cavp_config)]
    if ask.size == "tiny":
        fields = {"model_channels": 8, "channel_mult": (1,), "num_groups": 4, "num_heads": 2}
        configs[0].model.unet.update({**fields, "attention_downsamples": (1,)})
    networks = []
    for config in configs:
        config.dtype = ask.dtype
        task = task_lib.resolve(config)
        networks.append(weights.network(task.build))
    config, cavp = configs
    schedule = task_lib.resolve(config).schedule
    model = foley_pipeline.DiffFoley(
        ldm=networks[0],
        cavp=networks[1],
        config=config,
        cavp_config=cavp,
        schedule=schedule,
    )
    return model, config


def foley_walk(
    model: foley_pipeline.DiffFoley, config: Any, seconds: float, count: int, ask: case.Ask
) -> Walk:
    """Audio for `count` videos of so many seconds, with classifier-free guidance."""
    spec, rng = model.video, np.random.default_rng(0)
    shape = (round(seconds * spec.fps), spec.height, spec.width, 3)
    sources = [
        foley_pipeline.Source(
            pathlib.Path(f"{i}.mp4"), rng.integers(0, 255, shape).astype(np.uint8), seconds
        )
        for i in range(count)
    ]
    settings = foley_pipeline.Settings(steps=ask.of(tiny=2, small=10, paper=25))
    return Walk(
        lambda: model.generate(sources, settings),
        lambda: _foley_flops(model, config, shape[0], count, settings.steps),
    )


def _foley_flops(
    model: foley_pipeline.DiffFoley, config: Any, num_features: int, count: int, steps: int
) -> float:
    """Returns the FLOPs of all solver steps and of the decoding."""
    plan = windows.plan(num_features, model.window)
    width = model.ldm.module().conditioner.in_dim
    features_RD = np.zeros((num_features, width), np.float32)
    requests = [
        packed_windows.Request(plan, features_RD, str(i), packed_windows.NoiseSeed(0))
        for i in range(count)
    ]
    packed, _, batch = packed_windows.pack_windows(requests, model.window, model.device_windows)
    schedule, prediction = task_lib.resolve(config).schedule, config.loss.prediction

    def solving(steps: int) -> float:
        program = solve.Program(
            schedule, prediction, model.latent_shape, steps, "dpm_solver", "default", True, batch
        )

        def run(state: Any, packed: packed_windows.PackedWindows, scale: jax.Array) -> jax.Array:
            whole = model.ldm.module(state)
            return solve.sample(program, whole, None, packed, scale, scale, None)

        return flops.count(run, model.ldm.state, packed, jnp.float32(4.5))

    def decode(state: Any, z_BHVC: jax.Array) -> jax.Array:
        return model.ldm.module(state).decode_mel(z_BHVC)

    batches = math.ceil(int(packed.cover.count) / batch)
    # the loop over batches counts once
    per_step = solving(steps + 1) - solving(steps)
    z_BHVC = jax.ShapeDtypeStruct((batch, *model.latent_shape), jnp.float32)
    return steps * batches * per_step + batches * flops.count(decode, model.ldm.state, z_BHVC)


def mm_walk(frames: int, ask: case.Ask) -> Walk:
    """One sounding video of so many frames, from noise."""
    config = mm_config.get_config("demo")
    config.data.num_frames, config.dtype = frames, ask.dtype
    task = task_lib.resolve(config)
    network = weights.network(task.build)
    model = mm_pipeline.MMDiffusion(network, config)
    settings = mm_settings.Settings(steps=ask.of(tiny=3, small=6, paper=20))
    about = mm_pipeline.denoiser_of(config)

    def run(state: Any, keys_B: jax.Array, key: jax.Array) -> Any:
        keys_B, key = jax.random.wrap_key_data(keys_B), jax.random.wrap_key_data(key)
        whole = network.module(state)
        return mm_sampling.sample(whole, keys_B, key, {}, about=about, settings=settings)

    return Walk(
        lambda: model.make([mm_pipeline.Request("noise")], settings),
        lambda: flops.count(
            run, network.state, jnp.zeros((1, 2), jnp.uint32), jnp.zeros(2, jnp.uint32)
        ),
    )
