"""The programs of sampling, as `foley_jax.sample` runs them on the chips of one host."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from foley_jax.aot import programs
from foley_jax.diff_foley.sampling import (
    packed_windows,
    solve,
)
from foley_jax.diff_foley.sampling import pipeline as foley_pipeline
from foley_jax.diffusion import tape, windows
from foley_jax.media import specs
from foley_jax.mm_diffusion.sampling import pipeline as mm_pipeline
from foley_jax.mm_diffusion.sampling import solve as sampling
from foley_jax.mm_diffusion.sampling import upscaling
from foley_jax.mmaudio.sampling import settings as mmaudio_settings
from foley_jax.mmaudio.sampling import solve as mmaudio_solve
from foley_jax.mmaudio.sampling import window_spec
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.runtime import network as network_lib
from foley_jax.runtime import partition, seed_keys
from foley_jax.training import task as task_lib

PER_CHIP = {"ldm": 64, "mm_diffusion": 32, "mm_super_resolution": 16, "mmaudio": 16}


def of(
    config: ml_collections.ConfigDict,
    devices: list[jax.Device],
    *,
    guide: ml_collections.ConfigDict | None = None,
    per_chip: int | None = None,
) -> list[programs.Program]:
    """Programs that sampling runs on the device, one program after another.

    Args:
      config: of ldm (25 steps of DPM-Solver, classifier-free guidance; then the autoencoder),
        mm_diffusion (20 evaluations), mm_super_resolution (25 steps) or mmaudio (25 steps of
        Euler, classifier-free guidance; neither its autoencoder nor its vocoder).
      devices: of one host.
      guide: of the alignment classifier, for double guidance.
      per_chip: windows of 8 s, clips, or frames; by default as `foley_jax.sample` takes.
    Raises:
      ValueError: nothing is sampled with that stage.
    """
    makers = {
        "ldm": functools.partial(_diff_foley, guide=guide),
        "mm_diffusion": _mm_diffusion,
        "mm_super_resolution": _super_resolution,
        "mmaudio": _mmaudio,
    }
    if config.task not in makers:
        raise ValueError(f"nothing is sampled with {config.task!r}; with {', '.join(makers)} it is")
    mesh = mesh_lib.make_mesh(devices=devices)
    # not under `jax.set_mesh`: keys of noise are made here, and the chips are not
    return makers[config.task](config, mesh, (per_chip or PER_CHIP[config.task]) * mesh.size)


def _network(config: ml_collections.ConfigDict) -> network_lib.Network:
    """A stage's network with shapes in the place of weights."""
    task = task_lib.resolve(config)
    return network_lib.Network.of(network_lib.shapes(task.build))


def _anywhere(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Shapes of arguments that come from the host, whole on every device."""
    whole = mesh_lib.replicated(mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
        jax.eval_shape(lambda: tree),
    )


def _program(
    name: str,
    fn: Callable,
    networks: list[network_lib.Network],
    args: tuple[Any, ...],
    mesh: jax.sharding.Mesh,
    examples: int,
) -> programs.Program:
    """`fn(*modules, *args)` with the networks' weights as arguments."""

    def run(states: list[Any], *args: Any) -> Any:
        return fn(*(n.module(state) for n, state in zip(networks, states, strict=True)), *args)

    states = [partition.with_shardings(network.state, mesh) for network in networks]
    args = _anywhere(args, mesh)
    parts = {"parameters": states, "inputs": args}
    return programs.Program(name, jax.jit(run), (states, *args), mesh, parts, examples)


def _diff_foley(
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh,
    count: int,
    *,
    guide: ml_collections.ConfigDict | None,
) -> list[programs.Program]:
    networks = [_network(config)] + ([] if guide is None else [_network(guide)])
    model = networks[0].module()
    audio, video = specs.AudioSpec(**config.audio), specs.VideoSpec(**config.video)
    window = foley_pipeline.window_of(model, config, audio, video)
    latent_shape = model.latent_shape(audio.num_mels, config.data.window_frames)
    plan = windows.plan(window.num_features, window)
    features_RD = np.zeros((window.num_features, model.conditioner.in_dim), np.float32)
    requests = [
        packed_windows.Request(plan, features_RD, "blank", packed_windows.NoiseSeed(0, i))
        for i in range(count)
    ]
    packed, _, batch = packed_windows.pack_windows(
        requests, window, count // mesh.size, num_devices=mesh.size
    )
    schedule, prediction = task_lib.resolve(config).schedule, config.loss.prediction
    fixed = solve.Program(
        schedule, prediction, latent_shape, 25, "dpm_solver", "default", True, batch
    )

    def sample(model, *others):
        classifier, others = (None, others) if guide is None else (others[0], others[1:])
        return solve.sample(fixed, model, classifier, *others, None)

    scales = (jnp.float32(4.5), jnp.float32(50.0))
    height, width, channels = latent_shape
    canvas = jnp.zeros((height, width * len(packed.keys_K), channels), jnp.float32)
    decode = functools.partial(solve.decode, width=width)
    first = (canvas, packed.cover.first_N)
    return [
        _program("sample", sample, networks, (packed, *scales), mesh, count),
        _program("decode", decode, networks[:1], first, mesh, count),
    ]


def _mm_diffusion(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, count: int
) -> list[programs.Program]:
    about = mm_pipeline.denoiser_of(config)
    settings = mm_pipeline.Settings()

    def sample(model, keys_B, shift_key):
        keys_B, shift_key = (jax.random.wrap_key_data(x) for x in (keys_B, shift_key))
        return sampling.sample(model, keys_B, shift_key, {}, about=about, settings=settings)

    args = (jnp.zeros((count, 2), jnp.uint32), jnp.zeros(2, jnp.uint32))
    return [_program("sample", sample, [_network(config)], args, mesh, count)]


def _super_resolution(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, count: int
) -> list[programs.Program]:
    low = config.data.degradation
    factor = config.video.height // low.height

    def sample(model, low_BTHWC, key):
        key = jax.random.wrap_key_data(key)
        return upscaling.upscale(model, low_BTHWC, key, factor=factor, frames_at_once=count)

    args = (jnp.zeros((1, count, low.height, low.width, 3)), jnp.zeros(2, jnp.uint32))
    return [_program("sample", sample, [_network(config)], args, mesh, count)]


def _mmaudio(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, count: int
) -> list[programs.Program]:
    model, usual = config.model, mmaudio_settings.Settings()
    spec = window_spec.window_spec(task_lib.resolve(config).rates, config.data.window_s)
    laid = tape.lay_out(
        [[windows.Window(0, 0)]] * count, spec, count // mesh.size, num_devices=mesh.size
    )
    keys = [seed_keys.block_keys(0, "blank", i, 1) for i in range(count)]
    packed = mmaudio_solve.Packed(
        cover=laid.cover,
        clip_NVD=np.zeros((laid.size, spec.lengths.clip, model.clip_dim), np.float32),
        sync_NSD=np.zeros((laid.size, spec.lengths.sync, model.sync_dim), np.float32),
        seen_N=np.ones(laid.size, bool),
        text_N=np.zeros(laid.size, np.int32),
        text_MTD=np.zeros((1, model.text_length, model.text_dim), np.float32),
        negative_1TD=None,
        keys_K=tape.padded(np.concatenate(keys), laid.size),
    )
    program = mmaudio_solve.Program(usual.steps, usual.sampler, True, laid.batch)
    run = functools.partial(mmaudio_solve.sample, program)
    args = (packed, jnp.float32(usual.scale))
    return [_program("sample", run, [_network(config)], args, mesh, count)]
