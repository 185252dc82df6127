"""Sounding videos from noise, audio for video, video for audio: host side.

B clips in one device batch, F frames, H W C image, L audio samples, T any length in frames.
"""

from collections.abc import Callable, Sequence
import copy
import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections
import numpy as np

from foley_jax.diffusion import finite
from foley_jax.diffusion import schedule as schedule_lib
from foley_jax.media import pixels, specs
from foley_jax.mm_diffusion.sampling import settings as settings_lib
from foley_jax.mm_diffusion.sampling import signals, solve, upscaling, windows
from foley_jax.runtime import limits, seed_keys
from foley_jax.runtime import network as network_lib
from foley_jax.runtime import run as run_lib

Settings, Run = settings_lib.Settings, run_lib.Run
OVERLAP = 1 / 8  # of a window, where a longer input is cut into several


class Request(NamedTuple):
    """One thing to make; its randomness comes from the seed, this name and the window's number.

    Attributes:
      name: of the input file, or of the clip.
      frames_THWC: uint8, given video; None if it is to be made.
      audio_L: float32, given audio; None if it is to be made.
      path: of the input file; only carried along.
    """

    name: str
    frames_THWC: np.ndarray | None = None
    audio_L: np.ndarray | None = None
    path: Path | None = None

    @property
    def nbytes(self) -> int:
        return sum(p.nbytes for p in (self.frames_THWC, self.audio_L) if p is not None)


class Result(NamedTuple):
    """A clip with both: uint8 [T, H, W, 3] at the model's rate, float32 [samples].

    `fault` says why it is no clip, or is empty.
    """

    frames_THWC: np.ndarray
    audio: np.ndarray
    fault: str = ""


def denoiser_of(config: ml_collections.ConfigDict) -> solve.Denoiser:
    """Returns description of a run's network, besides its weights."""
    video, audio = specs.VideoSpec(**config.video), specs.AudioSpec(**config.audio)
    count = config.data.num_frames
    shapes = {
        "video": (1, count, video.height, video.width, 3),
        "audio": (1, audio.num_samples(count / video.fps), 1),
    }
    return solve.Denoiser(
        schedule=schedule_lib.linear(**config.loss.get("schedule", {})),
        prediction=config.loss.get("prediction", "eps"),
        shapes={name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()},
    )


class MMDiffusion:
    """The coupled network, perhaps a super-resolution one, and the walk of clips through them.

    Args:
      network: a `CoupledUNet`; `config` of its run.
      upscaler: a `SuperResolution`; `upscaler_config` of its run.
      device_clips: clips in the batch of one device; by default 4 on CPU and 32 elsewhere.
      mesh: devices of this process that share the work, see `mesh.local_mesh`; None is one.
    Attributes:
      run: what the work is part of, see `Run` and `within`.
    """

    def __init__(
        self,
        network: network_lib.Network,
        config: ml_collections.ConfigDict,
        *,
        upscaler: network_lib.Network | None = None,
        upscaler_config: ml_collections.ConfigDict | None = None,
        device_clips: int | None = None,
        mesh: Mesh | None = None,
    ):
        self.run, self.num_devices = Run(), 1 if mesh is None else mesh.size
        on_cpu = jax.default_backend() == "cpu"
        self.device_clips = device_clips or (4 if on_cpu else 32)
        self.video = specs.VideoSpec(**config.video)
        self.audio = specs.AudioSpec(**config.audio)
        self.num_frames = config.data.num_frames
        self.num_samples = self.audio.num_samples(self.num_frames / self.video.fps)
        self.companding = config.data.get("companding", 0.0)
        self._about = denoiser_of(config)
        self._network, self._programs = network.on(mesh), {}
        self._watching: dict[Settings, tuple[Callable, finite.Watch]] = {}
        self.factor = 1
        if upscaler is not None:
            self.factor = upscaler_config.video.height // self.video.height
            schedule = schedule_lib.linear(**upscaler_config.loss.get("schedule", {}))
            self._upscaling_steps = schedule.num_steps
            self._upscale = upscaler.on(mesh).jit(
                functools.partial(
                    upscaling.upscale,
                    factor=self.factor,
                    frames_at_once=self.num_devices * (2 if on_cpu else 16),
                    schedule=schedule,
                    prediction=upscaler_config.loss.get("prediction", "eps"),
                ),
                static_argnames="num_steps",
            )

    def within(self, run: Run) -> "MMDiffusion":
        """Returns the same model, its work part of `run`; every batch of windows is a stage."""
        model = copy.copy(self)
        model.run = run
        return model

    def check(self, settings: Settings) -> None:
        """Whether the networks can follow the settings.

        Raises:
          ValueError: more steps than a diffusion has.
        """
        if settings.steps is not None:
            limits.whole("steps", settings.steps, 2, self._about.schedule.num_steps)
        if self.factor > 1 and settings.super_resolve:
            limits.whole("sr_steps", settings.sr_steps, 1, self._upscaling_steps)

    def make(self, requests: Sequence[Request], settings: Settings) -> list[Result]:
        """One clip for each request, all with the same part given (or none).

        Inputs longer than the model's clip are cut into overlapping windows, which know nothing
        of each other; where they overlap, the results fade into each other. The last window of a
        shorter one repeats its last frame, or falls silent, and the result is cut again.
        """
        plans = [self._plan(request) for request in requests]
        parts = [
            part for request, plan in zip(requests, plans) for part in self._cut(request, plan)
        ]
        keys = [
            seed_keys.noise_key(settings.seed, request.name, number)
            for request, plan in zip(requests, plans)
            for number in range(len(plan))
        ]
        clips = self._sample(self._program(settings), parts, keys, settings)
        results, at = [], 0
        for request, plan in zip(requests, plans):
            own = slice(at, at + len(plan))
            at = own.stop
            fault = self._fault(plan, parts[own], clips[own], keys[own], settings)
            if fault:  # what is no number cannot be joined
                clips[own] = [jax.tree.map(np.nan_to_num, clip) for clip in clips[own]]
            joined = self._joined(request, plan, clips[own], keys[own], settings)
            results.append(joined._replace(fault=fault or joined.fault))
        return results

    def _fault(
        self,
        plan: Sequence[int],
        parts: Sequence[dict[str, np.ndarray]],
        clips: Sequence[dict[str, np.ndarray]],
        keys: Sequence[jax.Array],
        settings: Settings,
    ) -> str:
        """Why a clip's windows are not finite; nothing if they are.

        The first window that is not is made again, alone, by a program that watches every step.
        """
        bad = [i for i, clip in enumerate(clips) if not _is_finite(clip)]
        if not bad:
            return ""
        i = bad[0]
        start_s, end_s = (frame / self.video.fps for frame in (plan[i], plan[i] + self.num_frames))
        where = f"window {i + 1} of {len(plan)} ({start_s:.1f} to {end_s:.1f} s)"
        program, watch = self._watched(settings)
        (again,) = self._sample(program, parts[i : i + 1], keys[i : i + 1], settings)
        trouble = watch.first()
        if trouble is not None:
            what = f"{trouble.words}, {where}"
        elif _is_finite(again):
            return "it is not finite beside others, but is alone; use --group=1"
        else:
            streams = " and ".join(name for name in again if not _is_finite(again[name]))
            what = f"the latents ({streams}) after the last solver step, {where}"
        return (
            f"it is not finite, beginning with {what}; check the checkpoint, use --dtype=float32 "
            "or a smaller --scale"
        )

    def _plan(self, request: Request) -> list[int]:
        """First frame of every window."""
        length = self.num_frames
        if request.frames_THWC is not None:
            length = len(request.frames_THWC)
        elif request.audio_L is not None:
            seconds = len(request.audio_L) / self.audio.sample_rate_hz
            length = self.video.num_frames(seconds)
        return windows.starts(length, self.num_frames, round(OVERLAP * self.num_frames))

    def _sample_at(self, frame: int) -> int:
        return self.audio.num_samples(frame / self.video.fps)

    def _cut(self, request: Request, plan: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """The given part of every window, as the model sees it."""
        if request.frames_THWC is not None:
            cut = windows.cut(request.frames_THWC, plan, self.num_frames)
            return [{"video": pixels.from_uint8(part)} for part in cut]
        if request.audio_L is None:
            return [{} for _ in plan]
        needed = self._sample_at(plan[-1]) + self.num_samples
        audio_L = np.pad(request.audio_L, (0, max(0, needed - len(request.audio_L))))
        cut = windows.cut(audio_L, [self._sample_at(at) for at in plan], self.num_samples)
        return [
            {"audio": np.asarray(signals.audio_to_model(part, companding=self.companding))}
            for part in cut
        ]

    def _sample(
        self,
        program: Callable,
        parts: Sequence[dict[str, np.ndarray]],
        keys: Sequence[jax.Array],
        settings: Settings,
    ) -> list[dict[str, np.ndarray]]:
        """The model's clips, in batches of one shape."""
        share = min(self.device_clips, -(-len(parts) // self.num_devices))
        size = share * self.num_devices
        shift_key = jax.random.fold_in(seed_keys.key(settings.seed), 0)
        made = []
        for at in range(0, len(parts), size):
            index = np.minimum(np.arange(at, at + size), len(parts) - 1)  # the last one again
            known = {name: np.stack([parts[i][name] for i in index]) for name in parts[0]}
            with self.run.watch("diffusion"):
                out = program(jnp.stack([keys[i] for i in index]), shift_key, known)
                out = {name: np.asarray(part) for name, part in out.items()}
            made += [{name: part[i] for name, part in out.items()} for i in range(size)]
        return made[: len(parts)]

    def _program(self, settings: Settings):
        """The compiled sampler of these settings, but for those that are not its matter."""
        settings = _of_sampler(settings)
        if settings not in self._programs:
            run = functools.partial(solve.sample, about=self._about, settings=settings)
            self._programs[settings] = self._network.jit(run, name=f"sample {settings}")
        return self._programs[settings]

    def _watched(self, settings: Settings) -> tuple[Callable, finite.Watch]:
        """Returns the same sampler, watched; not kept on disk, as it asks the host."""
        settings, watch = _of_sampler(settings), finite.Watch()
        if settings not in self._watching:
            fixed = {"about": self._about, "settings": settings, "watch": watch}
            program = self._network.jit(functools.partial(solve.sample, **fixed))
            self._watching[settings] = program, watch
        return self._watching[settings]

    def _joined(
        self,
        request: Request,
        plan: Sequence[int],
        clips: Sequence[dict[str, np.ndarray]],
        keys: Sequence[jax.Array],
        settings: Settings,
    ) -> Result:
        """Windows to one clip of the request's length; what was given stays as it was."""
        frames, audio, fault = request.frames_THWC, request.audio_L, ""
        if frames is None:
            length = plan[-1] + self.num_frames
            if audio is not None:
                length = self.video.num_frames(len(audio) / self.audio.sample_rate_hz)
            large = [self._enlarged(c["video"], k, settings) for c, k in zip(clips, keys)]
            if not _is_finite(large):
                fault = (
                    "it is not finite, beginning with the super-resolution; check its checkpoint"
                )
                large = np.nan_to_num(large)
            frames = pixels.to_uint8(windows.join(large, plan, max(1, length)))
        if audio is None:
            audio_clips = [
                signals.audio_from_model(clip["audio"], companding=self.companding)
                for clip in clips
            ]
            length = self._sample_at(len(frames))
            audio = windows.join(audio_clips, [self._sample_at(at) for at in plan], length)
        return Result(frames, audio, fault)

    def _enlarged(self, video: np.ndarray, key: jax.Array, settings: Settings) -> np.ndarray:
        """[F, H, W, C] -> the size of the super-resolution, where it is there and wanted."""
        if self.factor == 1 or not settings.super_resolve:
            return video
        key = jax.random.fold_in(key, 1)
        with self.run.watch("super-resolution"):
            return np.asarray(self._upscale(video[None], key, num_steps=settings.sr_steps))[0]


def _of_sampler(settings: Settings) -> Settings:
    """The settings but for those that are not the sampling program's matter."""
    return dataclasses.replace(settings, seed=0, super_resolve=False, sr_steps=1)


def _is_finite(arrays: Any) -> bool:
    """Whether a pytree of arrays is finite."""
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(arrays))
