"""Feature rows to latents and latents to mels, on the device.

The windows lie on a tape (`packed_windows`).
Axis letters: N windows, B of them evaluated at once, H V C latent rows, columns of a window and
channels, W columns of the tape, L features, D width, K blocks, R features of a whole video.
"""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diff_foley.sampling import (
    conditions,
    feature_cache,
    packed_windows,
)
from foley_jax.diff_foley.sampling import settings as settings_lib
from foley_jax.diffusion import finite, gaussian, guidance, inpainting, multidiffusion, varying
from foley_jax.diffusion import windows as windows_lib
from foley_jax.diffusion.samplers import ddim, dpm_multistep, few_step, plms
from foley_jax.runtime import limits, partition, seed_keys
from foley_jax.runtime import network as network_lib

# what `finite.Watch` watches in every window and step, besides the latents
NETWORK, GUIDANCE, ALIGNMENT = "network", "classifier-free guidance", "alignment gradient"
SAMPLERS = {
    "dpm_solver": dpm_multistep.sample,
    "ddim": ddim.sample,
    "plms": plms.sample,
    "few_step": few_step.sample,  # of students, whatever the settings say
}

STARTS = {"dpm_solver": dpm_multistep.starts_at, "ddim": ddim.starts_at}


@dataclasses.dataclass(frozen=True)
class Program:
    """The fixed part of a sampling program; the rest are its arguments.

    Attributes:
      schedule, prediction: of the diffusion.
      latent_shape: [H, V, C] of one window's latent.
      steps, sampler, preset: see `settings.Settings`.
      guided: the classifier-free guidance scale is not 1.
      batch: windows evaluated at once.
      cache: of the U-Net's deep features.
      skip: steps left out at the beginning, which is then audio that is there, noised.
    """

    schedule: Any
    prediction: str
    latent_shape: tuple[int, int, int]
    steps: int
    sampler: str
    preset: str
    guided: bool
    batch: int
    cache: feature_cache.FeatureCache = feature_cache.FeatureCache()
    skip: int = 0


def noise(program: Program, keys_K: jax.Array) -> jax.Array:
    """Standard normal canvas [H, K*V, C] of raw keys, one for every block of columns."""
    keys = seed_keys.wrapped(keys_K)
    blocks_KHVC = jax.vmap(lambda key: jax.random.normal(key, program.latent_shape))(keys)
    height, _, channels = program.latent_shape
    # [K, H, V, C] -> [H, K*V, C]
    return jnp.moveaxis(blocks_KHVC, 0, 1).reshape(height, -1, channels)


def solve(
    program: Program,
    model: nnx.Module,
    classifier: nnx.Module | None,
    packed: packed_windows.PackedWindows,
    x_T: jax.Array,
    scale: jax.Array,
    alignment: jax.Array,
    raw_features_RD: jax.Array | None,
    watch: finite.Watch | None = None,
) -> jax.Array:
    """Denoises a tape; runs inside jit, without a host round trip.

    Args:
      program: what is fixed.
      model: LatentDiffusion.
      classifier: AlignmentModel, or None for no double guidance.
      tape: windows and their conditions.
      x_T: standard normal float32 [H, W, C].
      scale: classifier-free guidance scale, float32 scalar; not read unless `program.guided`.
      alignment: scale of the classifier's gradient, float32 scalar.
      raw_features_RD: preset "official" with a classifier: all features of the one video on the
        tape.
      watch: told what is finite in every window and step, see `finite.Watch`.
    Returns:
      Scaled latents float32 [H, W, C].
    Source: Diff-Foley notebook cell 13; joint denoising after Bar-Tal et al. 2023
      (MultiDiffusion).
    """
    p = program
    official = p.preset == "official"
    contexts, null = conditions.of_model(model, packed.features_NLD, p.batch, zero_null=official)
    every = (contexts, conditions.in_batches(packed.times_NL, p.batch))
    if classifier is not None:
        judged = conditions.of_classifier(classifier, packed.features_NLD, p.batch, raw_features_RD)
        every = (*every, judged)

    def predict(
        unet: Callable[..., jax.Array], x_BHVC: jax.Array, t_B: jax.Array, index_B: jax.Array
    ) -> jax.Array:
        def network(x_BHVC: jax.Array, t_B: jax.Array, context_and_times: Any) -> jax.Array:
            context, times_BL = context_and_times
            return unet(x_BHVC, t_B, context, context_s_BL=times_BL)

        x_BHVC, t_B = partition.shard_batch(x_BHVC), partition.shard_batch(t_B)
        context, times_BL, *judged = conditions.at(every, index_B[0] // p.batch)

        def watched(term: str, fn: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
            return fn if watch is None else watch.around(term, fn, index_B)

        if watch is not None:
            watch.note(finite.INPUT, x_BHVC, t_B, index_B)
        condition = (conditions.context_of(model, context), times_BL)
        null_condition = (null, times_BL)
        own_scale = scale if p.guided else 1
        network = watched(NETWORK, network)
        denoise = guidance.classifier_free(network, condition, null_condition, own_scale)
        denoise = watched(GUIDANCE, gaussian.as_eps(denoise, p.schedule, p.prediction))
        if classifier is not None:
            # all features of the video are judged at the times of a window that begins with them
            times = times_BL if raw_features_RD is None else None
            log_prob = functools.partial(_log_prob, classifier, *judged, times)
            denoise = guidance.double_guidance(denoise, log_prob, p.schedule, alignment)
            denoise = watched(ALIGNMENT, denoise)
        return denoise(x_BHVC, t_B)

    if p.cache.interval == 1:
        exact = functools.partial(predict, model.denoise)
        canvas = multidiffusion.denoiser(exact, packed.cover, batch=p.batch)
    else:
        canvas = feature_cache.denoiser(
            p.cache,
            predict,
            model.unet,
            packed.cover,
            batch=p.batch,
            examples=(1 + p.guided) * p.batch,
            latent_shape=p.latent_shape,
        )
    if packed.kept is not None:
        z_HWC, known_W = packed.kept
        canvas = inpainting.keeping(canvas, p.schedule, z_HWC[None], known_W[None, None, :, None])
    skip = {"skip": p.skip} if p.skip else {}  # only some samplers know it
    return SAMPLERS[p.sampler](canvas, p.schedule, x_T[None], num_steps=p.steps, **skip)[0]


def sample(
    program: Program,
    model: nnx.Module,
    classifier: nnx.Module | None,
    packed: packed_windows.PackedWindows,
    *scales_and_rows: jax.Array | None,
    watch: finite.Watch | None = None,
) -> jax.Array:
    """`solve` from the noise of the tape's keys, or from what is varied, noised with it.

    The last arguments are `solve`'s.
    """
    x_T = noise(program, packed.keys_K)
    if program.skip:
        time = STARTS[program.sampler](program.schedule, program.steps, program.skip)
        x_T = varying.noised(program.schedule, packed.varied_HWC, x_T, time)
    return solve(program, model, classifier, packed, x_T, *scales_and_rows, watch=watch)


def _log_prob(classifier, features, times_BL, x_BHVC, t_B) -> jax.Array:
    return classifier.log_prob(x_BHVC, t_B, features, context_s_BL=times_BL)


def decode(model: nnx.Module, z_HWC: jax.Array, first_B: jax.Array, *, width: int) -> jax.Array:
    """Mels [B, F, T] of the windows that begin at those columns of a tape; not clipped."""
    return model.decode_mel(partition.shard_batch(multidiffusion.cut(z_HWC, first_B, width)))


def match(
    classifier: nnx.Module,
    z_HWC: jax.Array,
    first_B: jax.Array,
    features_BLD: jax.Array,
    times_BL: jax.Array,
    *,
    width: int,
) -> jax.Array:
    """Probability [B] that the clean latents of windows belong to their features."""
    z_BHVC = partition.shard_batch(multidiffusion.cut(z_HWC, first_B, width))
    zeros = jnp.zeros(first_B.shape, jnp.float32)
    return jax.nn.sigmoid(classifier.logits(z_BHVC, zeros, features_BLD, context_s_BL=times_BL))


class Sampler:
    """The compiled programs of one model; the parameters are their arguments."""

    def __init__(
        self,
        ldm: network_lib.Network,
        classifier: network_lib.Network | None,
        scorer: network_lib.Network | None,
        *,
        schedule: Any,
        prediction: str,
        spec: windows_lib.WindowSpec,
        latent_shape: tuple[int, int, int],
        student_steps: int | None = None,
    ):
        """Args:
        student_steps: evaluations that a distilled model was made for; None for other models.
        """
        self.student_steps = student_steps
        self.ldm, self.classifier, self.spec = ldm, classifier, spec
        self._fixed = (schedule, prediction, latent_shape)
        width = spec.num_columns
        self._programs: dict[tuple, Callable] = {}
        self._watches: dict[tuple, finite.Watch | None] = {}
        self._decode = ldm.jit(functools.partial(decode, width=width), name=f"decode {width}")
        scorer = scorer or classifier
        matched = functools.partial(match, width=width)
        self._match = scorer and scorer.jit(matched, name=f"match {width}")

    def check(self, settings: settings_lib.Settings) -> None:
        """Whether the model can follow the settings.

        Raises:
          ValueError: PLMS with a classifier, steps that the model cannot take, or of a student
            what only its teacher knows.
        """
        if self.student_steps is not None:
            self._check_student(settings)
            return
        settings.aligned(self.classifier is not None)
        schedule, *_ = self._fixed
        if settings.steps < 2:
            raise ValueError(
                f"steps is {settings.steps}, expected a whole number of at least 2: fewer are for "
                "models distilled to them (configs/ldm_distilled.py), and this one is not"
            )
        limits.whole("steps", settings.steps, 2, schedule.num_steps)
        if settings.sampler != "dpm_solver":
            ddim.strided_steps(schedule, settings.steps, 1)

    def _check_student(self, settings: settings_lib.Settings) -> None:
        """Raises ValueError for settings that a student cannot follow."""
        limits.student_steps(settings.steps, self.student_steps)
        if settings.vary < 1:
            raise ValueError("a distilled model begins with noise alone; give vary=1")
        usual = (settings.sampler, settings.preset, settings.cache_interval)
        if usual != ("dpm_solver", "default", 1):
            raise ValueError(
                "a distilled model has its own sampler, which keeps no features: leave out "
                f"sampler={settings.sampler!r}, preset={settings.preset!r} and "
                f"cache_interval={settings.cache_interval}"
            )

    def latents(
        self,
        packed: packed_windows.PackedWindows,
        settings: settings_lib.Settings,
        batch: int,
        raw_features_RD: np.ndarray | None,
    ) -> jax.Array:
        """Scaled latents [H, W, C] of a tape."""
        return self._run(packed, settings, batch, raw_features_RD, watched=False)[0]

    def trouble(
        self,
        packed: packed_windows.PackedWindows,
        settings: settings_lib.Settings,
        batch: int,
        raw_features_RD: np.ndarray | None,
    ) -> tuple[jax.Array, finite.Trouble | None]:
        """`latents` by a slower program, and where they first were not finite."""
        z_HWC, watch = self._run(packed, settings, batch, raw_features_RD, watched=True)
        jax.block_until_ready(z_HWC)
        return z_HWC, watch.first()

    def _run(
        self,
        packed: packed_windows.PackedWindows,
        settings: settings_lib.Settings,
        batch: int,
        raw_features_RD: np.ndarray | None,
        *,
        watched: bool,
    ) -> tuple[jax.Array, finite.Watch | None]:
        student = self.student_steps is not None
        aligned = not student and settings.aligned(self.classifier is not None)
        guided = not student and settings.guidance != 1
        sampler = "few_step" if student else settings.sampler
        cache = feature_cache.FeatureCache(settings.cache_interval, settings.cache_depth)
        skip = varying.skipped(settings.vary, settings.steps)
        choice = (settings.steps, sampler, settings.preset, guided, batch, cache, skip)
        key = (watched, aligned, *choice, packed.kept is not None)
        if key not in self._programs:
            watch = self._watches[key] = finite.Watch() if watched else None
            run = functools.partial(sample, Program(*self._fixed, *choice), watch=watch)
            classifier = self.classifier if aligned else None
            # a program that asks the host cannot be kept on disk
            name = f"sample {aligned} {choice}" + " kept" * (packed.kept is not None)
            name = "" if watched else name
            self._programs[key] = network_lib.jit_pair(run, self.ldm, classifier, name=name)
        scales = (jnp.float32(settings.guidance), jnp.float32(settings.alignment))
        raw_features_RD = raw_features_RD if aligned else None
        return self._programs[key](packed, *scales, raw_features_RD), self._watches[key]

    def mels(
        self, z_HWC: jax.Array, packed: packed_windows.PackedWindows, batch: int
    ) -> Iterator[np.ndarray]:
        """Mel [F, T] of every window of a tape; those of one device batch are held."""
        first_N, count = packed.cover.first_N, int(packed.cover.count)
        for at in range(0, count, batch):
            yield from np.asarray(self._decode(z_HWC, first_N[at : at + batch]))[: count - at]

    def alignment(
        self, z_HWC: jax.Array, packed: packed_windows.PackedWindows, batch: int
    ) -> np.ndarray | None:
        """Probability of every window that its audio belongs to its features; None if unknown."""
        if self._match is None:
            return None
        parts = []
        for at in range(0, int(packed.cover.count), batch):
            span = slice(at, at + batch)
            arrays = (packed.cover.first_N[span], packed.features_NLD[span], packed.times_NL[span])
            parts.append(np.asarray(self._match(z_HWC, *arrays)))
        return np.concatenate(parts)[: int(packed.cover.count)]
