"""From decoded video frames to sound: CAVP rows, windows, diffusion, mel, waveform.

Axis letters: B windows in one device batch, T frames, H W, C channels, L rows, D width, F mels.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple
import zlib

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from foley_jax.diff_foley import features, windows
from foley_jax.diffusion import dpm_solver, process
from foley_jax.diffusion import guidance as guidance_lib
from foley_jax.media import mel as mel_lib
from foley_jax.media import specs, vocoder
from foley_jax.training import task as task_lib

SCORE_SECONDS = 4.0  # CAVP compares picture and sound over clips of this length
VOCODER_BLOCK = 256  # mel frames; lengths are rounded up to it so that few programs are compiled


class Source(NamedTuple):
    """A decoded video: where it came from, frames uint8 [T, H, W, 3], its length in seconds."""

    path: Path
    frames_THWC: np.ndarray
    duration_s: float


class Sound(NamedTuple):
    """A decoded sound track, float32 [samples] at the model's rate."""

    path: Path
    audio: np.ndarray


class Result(NamedTuple):
    """Generated sound: float32 [samples], the log-mel [F, T] it was made from, scores."""

    audio: np.ndarray
    mel_FT: np.ndarray
    scores: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a generated sound depends on besides the video and the model.

    Attributes:
      steps: DPM-Solver++(2M) steps.
      guidance: classifier-free guidance scale.
      num_samples: sounds per video.
      preset: "default" uses the null condition seen in training; "official" the zeros of the
        published notebook (spec D1), which was never trained.
    Raises:
      ValueError: a value is out of range.
    """

    seed: int = 0
    steps: int = 25
    guidance: float = 4.5
    num_samples: int = 1
    preset: str = "default"

    def __post_init__(self):
        if self.preset not in ("default", "official"):
            raise ValueError(f"preset is {self.preset!r}, expected 'default' or 'official'")
        if self.steps < 2:
            raise ValueError(f"steps is {self.steps}; DPM-Solver++(2M) needs at least 2")
        if self.num_samples < 1:
            raise ValueError(f"num_samples is {self.num_samples}, expected at least 1")


@dataclasses.dataclass(frozen=True)
class Network:
    """A module as a static definition and a nested dict of arrays."""

    graphdef: nnx.GraphDef
    state: Mapping[str, Any]

    @classmethod
    def of(cls, model: nnx.Module) -> "Network":
        graphdef, state = nnx.split(model)
        return cls(graphdef, nnx.to_pure_dict(state))

    @classmethod
    def restore(cls, task: task_lib.Task, params: Mapping, rest: Mapping) -> "Network":
        """The task's model with a checkpoint's arrays, without making random weights."""
        abstract = nnx.eval_shape(lambda: task.build(nnx.Rngs(0)))
        graphdef, _, _ = nnx.split(abstract, task.trainable, ...)
        model = nnx.merge(graphdef, params, rest)
        return cls.of(model)

    def jit(self, fn: Callable, **jit_options) -> Callable:
        """`fn(model, *args)` compiled, with the parameters as an argument of the program."""
        compiled = jax.jit(
            lambda state, *args, **kwargs: fn(nnx.merge(self.graphdef, state), *args, **kwargs),
            **jit_options,
        )
        return functools.partial(compiled, self.state)


def sample_mel(
    model: nnx.Module,
    rows_BLD: jax.Array,
    keys_B: jax.Array,
    guidance: jax.Array,
    *,
    schedule: Any,
    prediction: str,
    steps: int,
    latent_shape: tuple[int, int, int],
    preset: str,
) -> jax.Array:
    """Generates the mels of a batch of windows; one program, no host round trip.

    Args:
      model: LatentDiffusion.
      rows_BLD: CAVP rows, unit norm, float32.
      keys_B: one PRNG key per window; a window's sound does not depend on its batch.
      guidance: classifier-free guidance scale, float32 scalar.
      latent_shape: [H, W, C] of one window's latent.
    Returns:
      log-mels in [0, 1], float32 [B, F, frames].
    Source: Diff-Foley notebook cell 13, without the alignment classifier.
    """
    context_BLD = model.conditioner(rows_BLD)
    if preset == "official":
        null_BLD = jnp.zeros_like(context_BLD)
    else:
        null_BLD = model.conditioner(jnp.zeros_like(rows_BLD))
    z_T = jax.vmap(lambda key: jax.random.normal(key, latent_shape))(keys_B)  # [B, H, W, C]
    network = guidance_lib.classifier_free(model.denoise, context_BLD, null_BLD, guidance)
    denoise = process.as_eps(network, schedule, prediction)
    z_0 = dpm_solver.sample(denoise, schedule, z_T, num_steps=steps)
    return jnp.clip(model.decode_mel(z_0), 0.0, 1.0)


class DiffFoley:
    """The networks of Diff-Foley and the walk of one video through them."""

    def __init__(
        self,
        *,
        ldm: Network,
        cavp: Network,
        config: ml_collections.ConfigDict,
        cavp_config: ml_collections.ConfigDict,
        schedule: Any,
        device_windows: int | None = None,
    ):
        self.ldm, self.cavp, self.config, self.schedule = ldm, cavp, config, schedule
        self.audio = specs.AudioSpec(**config.audio)
        self.cavp_audio = specs.AudioSpec(**cavp_config.audio)
        self.video = specs.VideoSpec(**cavp_config.video)
        self.window = windows.WindowSpec(
            config.data.num_rows, config.data.window_frames, self.video.fps, self.audio
        )
        on_cpu = jax.default_backend() == "cpu"
        self.device_windows = device_windows or (8 if on_cpu else 64)
        self._samplers: dict[tuple[int, str], Callable] = {}
        self._encode_video = cavp.jit(features.encode_frames)
        self._score = cavp.jit(_similarity)
        self._decode = ldm.jit(_autoencode)

    # ---- generation ---------------------------------------------------------------------------

    def generate(self, sources: Sequence[Source], settings: Settings) -> list[list[Result]]:
        """Sound for several videos in shared device batches.

        Returns:
          For each source its `num_samples` results, best `cavp_similarity` first.
        """
        plans, rows, keys = [], [], []
        for source in sources:
            rows_LD = features.extract(self._encode_video, source.frames_THWC)
            first, cut_BLD = windows.cut(rows_LD, self.window)
            plans.append(first)
            for index in range(settings.num_samples):
                rows.extend(cut_BLD)
                keys.extend(window_keys(settings.seed, source.path.stem, index, len(first)))
        mels = self._sample(np.stack(rows), np.stack(keys), settings)
        joined, at = [], 0
        for first in plans:
            for _ in range(settings.num_samples):
                joined.append(windows.join(mels[at : at + len(first)], first, self.window))
                at += len(first)
        lengths = [
            self.audio.num_samples(s.duration_s)
            for s in sources
            for _ in range(settings.num_samples)
        ]
        audios = self.vocode(joined, lengths)
        return self._ranked(sources, joined, audios, settings.num_samples)

    def _ranked(self, sources, mels, audios, num_samples) -> list[list[Result]]:
        results, at = [], 0
        for source in sources:
            made = []
            for mel_FT, audio in zip(mels[at : at + num_samples], audios[at : at + num_samples]):
                scores = {"cavp_similarity": self.similarity(source.frames_THWC, audio)}
                frames = min(mel_FT.shape[1], self.audio.num_frames(len(audio)))
                made.append(Result(audio, mel_FT[:, :frames], scores))
            # a video too short to be scored keeps the order of its samples
            made.sort(key=lambda r: -np.nan_to_num(r.scores["cavp_similarity"]))
            results.append(made)
            at += num_samples
        return results

    def _sample(self, rows_NLD: np.ndarray, keys_N: np.ndarray, settings: Settings) -> np.ndarray:
        """All windows through the device in batches of one shape."""
        sampler = self._sampler(settings.steps, settings.preset)
        guidance = jnp.float32(settings.guidance)
        batch, mels = self.device_windows, []
        for at in range(0, len(rows_NLD), batch):
            index = np.minimum(np.arange(at, at + batch), len(rows_NLD) - 1)  # pads the last
            keys_B = jax.random.wrap_key_data(keys_N[index])
            mels.append(sampler(rows_NLD[index], keys_B, guidance))
        return np.concatenate([np.asarray(m) for m in mels])[: len(rows_NLD)]

    def _sampler(self, steps: int, preset: str) -> Callable:
        if (steps, preset) not in self._samplers:
            fn = functools.partial(
                sample_mel,
                schedule=self.schedule,
                prediction=self.config.loss.prediction,
                steps=steps,
                latent_shape=self.latent_shape,
                preset=preset,
            )
            self._samplers[steps, preset] = self.ldm.jit(fn)
        return self._samplers[steps, preset]

    @functools.cached_property
    def latent_shape(self) -> tuple[int, int, int]:
        """[H, W, C] of one window's latent."""
        model = nnx.merge(self.ldm.graphdef, self.ldm.state)
        return model.latent_shape(self.audio.num_mels, self.window.num_frames)

    # ---- sound --------------------------------------------------------------------------------

    def vocode(self, mels_FT: Sequence[np.ndarray], lengths: Sequence[int]) -> list[np.ndarray]:
        """Mels of any lengths to waveforms of the asked lengths (zero-padded or cut)."""
        audios: list[np.ndarray | None] = [None] * len(mels_FT)
        by_frames: dict[int, list[int]] = {}
        for i, (mel_FT, length) in enumerate(zip(mels_FT, lengths)):
            frames = min(mel_FT.shape[1], self.audio.num_frames(length) + 4)
            by_frames.setdefault(-(-frames // VOCODER_BLOCK) * VOCODER_BLOCK, []).append(i)
        for frames, members in by_frames.items():
            padded = [_fit(mels_FT[i], frames) for i in members]
            for at in range(0, len(members), self.device_windows):
                part = padded[at : at + self.device_windows]
                count = len(part)
                part = part + part[-1:] * (self.device_windows - count)
                made = vocoder.mel_to_audio(jnp.asarray(np.stack(part)), self.audio)
                for i, audio in zip(members[at : at + count], np.asarray(made)):
                    audios[i] = _fit(audio, lengths[i])
        return audios

    def reconstruct(self, sounds: Sequence[Sound]) -> list[Result]:
        """True sound through mel, autoencoder and vocoder: the ceiling of generation."""
        mels, lengths = [], []
        for sound in sounds:
            mel_FT = np.asarray(mel_lib.log_mel(sound.audio[None], self.audio))[0]
            blocks = -(-mel_FT.shape[1] // VOCODER_BLOCK) * VOCODER_BLOCK
            decoded = self._decode(_fit(mel_FT, blocks)[None])
            mels.append(np.asarray(decoded)[0][:, : mel_FT.shape[1]])
            lengths.append(len(sound.audio))
        audios = self.vocode(mels, lengths)
        return [Result(audio, mel_FT, {}) for audio, mel_FT in zip(audios, mels)]

    # ---- scores -------------------------------------------------------------------------------

    def similarity(self, frames_THWC: np.ndarray, audio: np.ndarray) -> float:
        """Mean cosine similarity of picture and sound over 4 s clips by CAVP; nan if shorter.

        Args:
          frames_THWC: uint8 frames at the CAVP rate.
          audio: float32 [samples], starting with the first frame.
        """
        clip_frames = round(SCORE_SECONDS * self.video.fps)
        mel_frames = round(SCORE_SECONDS / self.cavp_audio.frame_s)
        mel_FT = np.asarray(mel_lib.log_mel(audio[None], self.cavp_audio))[0]
        count = min(len(frames_THWC) // clip_frames, mel_FT.shape[1] // mel_frames)
        if not count:
            return float("nan")
        frames = frames_THWC[: count * clip_frames]
        frames_BTHWC = frames.reshape(count, clip_frames, *frames.shape[1:])
        mel_BFT = np.stack(np.split(mel_FT[:, : count * mel_frames], count, axis=1))
        return float(self._score(frames_BTHWC, mel_BFT))


def window_keys(seed: int, name: str, sample: int, num_windows: int) -> np.ndarray:
    """Raw key data per window: a function of seed, video name, sample and window index only."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    key = jax.random.fold_in(key, sample)
    return np.asarray(jax.random.key_data(jax.random.split(key, num_windows)))


def _similarity(cavp: nnx.Module, frames_BTHWC: jax.Array, mel_BFT: jax.Array) -> jax.Array:
    frames_BTHWC = frames_BTHWC.astype(jnp.float32) / 255.0
    video_BD = cavp.encode_video(frames_BTHWC, normalize=True, pool=True)
    audio_BD = cavp.encode_spec(mel_BFT, normalize=True, pool=True)
    return (video_BD * audio_BD).sum(-1).mean()


def _autoencode(model: nnx.Module, mel_BFT: jax.Array) -> jax.Array:
    return jnp.clip(model.decode_mel(model.encode_mel(mel_BFT, key=None)), 0.0, 1.0)


def _fit(array: np.ndarray, length: int) -> np.ndarray:
    """Cuts or zero-pads the last axis to `length`."""
    missing = length - array.shape[-1]
    if missing <= 0:
        return array[..., :length]
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)])
