"""Sampling and training of latent diffusion: 8.2 s of audio for 32 features.

B windows, P audio clips, L samples or features, T mel frames, D width of a feature.
"""

from collections.abc import Callable, Iterator, Mapping
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import alignment as alignment_config
from configs import ldm as ldm_config
from foley_jax.bench import case, weights
from foley_jax.bench.peers import stable_diffusion
from foley_jax.bench.suites import latent_diffusion, steps
from foley_jax.diff_foley.sampling import (
    feature_cache,
    packed_windows,
    solve,
)
from foley_jax.diff_foley.sampling import pipeline as foley_pipeline
from foley_jax.diffusion import gaussian, windows
from foley_jax.media import mel, specs
from foley_jax.runtime import flops
from foley_jax.runtime import network as network_lib
from foley_jax.training import task as task_lib
from foley_jax.vocoders import griffin_lim

STEPS, GUIDANCE, ALIGNMENT = 25, 4.5, 50.0
RECORD_S = 10.0


def stage(ask: case.Ask) -> ml_collections.ConfigDict:
    """configs/ldm.py at the asked size: the paper's network, narrower where it is not "paper"."""
    config = steps.plain(ldm_config.get_config(), ask)
    config.model = ml_collections.ConfigDict(latent_diffusion.model_config(ask.size))
    config.data.window_frames = ask.of(tiny=64, small=512, paper=512)
    config.data.num_rows = ask.of(tiny=4, small=32, paper=32)
    config.loss.condition_dropout = 0.0
    return config


def guide(config: ml_collections.ConfigDict, ask: case.Ask) -> dict[str, Any]:
    """`config.model` of the guidance classifier that fits."""
    model = alignment_config.get_config().model.to_dict()
    model.pop("autoencoder", None)
    model.pop("latent_scale", None)
    model["classifier"]["remat"] = False
    if ask.size == "tiny":
        model["classifier"].update({"model_channels": 32, "context_dim": 16})
        model["conditioner"].update({"out_dim": 16})
    model["conditioner"]["in_dim"] = config.model.conditioner.in_dim
    return model


def ldm_sample(ask: case.Ask) -> Iterator[case.Case]:
    """25 steps with classifier-free guidance, alone and with the classifier's; to the waveform."""
    from foley_jax.diff_foley.models import alignment

    config = stage(ask)
    task = task_lib.resolve(config)
    network = weights.network(task.build)
    guided = guide(config, ask)
    classifier = weights.network(
        lambda keys: alignment.from_config(guided, dtype=ask.dtype, rngs=keys), seed=1
    )
    on_cpu = jax.default_backend() == "cpu"
    batches = ask.of(tiny=(1,), small=(1,), paper=(1,) if on_cpu else (1, 8, 64))
    for batch in batches:
        for double in (False, True):
            sampling = Sampling(task, network, classifier if double else None, batch)
            yield case.Case(
                "ldm_sample",
                f"{'double guidance' if double else 'CFG'}, batch {batch}",
                ask.size,
                sampling.program(),
                batch,
                "window",
                sampling.peers(ask, guided),
                # 25 evaluations one after another; in half precision only that it is no other audio
                # clip
                tolerance=ask.tolerance(2e-2, 1.0),
                output=lambda output: output[0],
                note="compared are the mels: torch's Griffin-Lim starts from random phases",
            )


def ldm_cached(ask: case.Ask) -> Iterator[case.Case]:
    """Sampling that keeps the U-Net's deep features, beside the same that computes every step."""
    task = task_lib.resolve(stage(ask))
    network = weights.network(task.build)
    exact = Sampling(task, network, None, batch=1).program()
    exact.compile()
    for interval in ask.of(tiny=(2,), small=(2, 3, 5), paper=(2, 3, 5)):
        cache = feature_cache.FeatureCache(interval)
        yield case.Case(
            "ldm_cached",
            f"CFG, batch 1, cache interval {interval}",
            ask.size,
            _Cached(interval, *Sampling(task, network, None, batch=1, cache=cache).call()),
            1,
            "window",
            {"every step": case.Peer(exact, lambda output: output[0])} if ask.peers else {},
            tolerance=5.0,  # another audio clip, but not one of other noise
            output=lambda output: output[0],
            note="FLOPs are ours; every step takes more, so that its share of peak reads too low",
        )


class _Cached(case.Program):
    """A sampler that takes its branch at every `interval`-th step: so often its FLOPs count."""

    def __init__(self, interval: int, jitted: Callable, args: tuple[Any, ...]):
        super().__init__(jitted, args)
        self._taken = math.ceil(STEPS / interval) / STEPS
        self._least = flops.of_jaxpr(jitted.trace(*args).jaxpr.jaxpr, branch=min)

    def compile(self) -> float:
        seconds = super().compile()
        self.flops = self._least + self._taken * (self.flops - self._least)
        return seconds


class Sampling:
    """One program from features to audio, and what it takes."""

    def __init__(
        self,
        task: task_lib.Task,
        network: network_lib.Network,
        classifier: network_lib.Network | None,
        batch: int,
        cache: feature_cache.FeatureCache | None = None,
    ):
        self.task, self.network, self.classifier = task, network, classifier
        config, model = task.config, network.module()
        self.spec, video = task.audio, specs.VideoSpec(**config.video)
        window = foley_pipeline.window_of(model, config, self.spec, video)
        self.latent_shape = model.latent_shape(self.spec.num_mels, config.data.window_frames)
        plan = windows.plan(window.num_features, window)
        rng = np.random.default_rng(0)
        width = model.conditioner.in_dim
        features_BLD = rng.standard_normal((batch, window.num_features, width), np.float32)
        features_BLD /= np.linalg.norm(features_BLD, axis=-1, keepdims=True)
        requests = [
            packed_windows.Request(plan, rows, "noise", packed_windows.NoiseSeed(0, i))
            for i, rows in enumerate(features_BLD)
        ]
        self.packed, _, at_once = packed_windows.pack_windows(requests, window, batch)
        self.batch = batch
        self.fixed = solve.Program(
            task.schedule,
            config.loss.prediction,
            self.latent_shape,
            STEPS,
            "dpm_solver",
            "default",
            True,
            at_once,
            cache or feature_cache.FeatureCache(),
        )

    def program(self) -> case.Program:
        """`call`, ready to be timed."""
        return case.Program(*self.call())

    def call(self) -> tuple[Callable, tuple[Any, ...]]:
        """Returns a program that denoises, decodes and makes audio in one go, and its arguments."""
        network, classifier = self.network, self.classifier
        decode = functools.partial(solve.decode, width=self.latent_shape[1])

        def run(states, packed, *scales):
            model = network.module(states[0])
            guide = None if classifier is None else classifier.module(states[1])
            z_HWC = solve.sample(self.fixed, model, guide, packed, *scales, None)
            mel_BFT = decode(model, z_HWC, packed.cover.first_N)
            waveform = griffin_lim.mel_to_audio(jnp.clip(mel_BFT, 0.0, 1.0), self.spec)
            return mel_BFT, waveform

        states = [network.state] + ([] if classifier is None else [classifier.state])
        scales = (jnp.float32(GUIDANCE), jnp.float32(ALIGNMENT))
        return jax.jit(run), (states, self.packed, *scales)

    def peers(self, ask: case.Ask, guided: Mapping[str, Any]) -> dict[str, case.Peer]:
        """Returns the same in torch, from the same noise."""
        if not ask.peers or stable_diffusion.absent():
            return {}
        from foley_jax.bench.peers import latent_sampling

        times = np.linspace(self.task.schedule.num_steps - 1, 0.0, STEPS + 1)
        alpha, sigma = self.task.schedule.alpha_sigma_at(jnp.asarray(times, jnp.float32))
        x_HWC = np.asarray(jax.jit(functools.partial(solve.noise, self.fixed))(self.packed.keys_K))
        # [H, B*V, C] -> [B, H, V, C]
        h, v, c = self.latent_shape
        x_BHVC = x_HWC.reshape(h, -1, v, c).transpose(1, 0, 2, 3)
        given = latent_sampling.Given(
            x_BHVC=x_BHVC,
            features_BLD=self.packed.features_NLD,
            times=times,
            alpha=np.asarray(alpha, np.float64),
            sigma=np.asarray(sigma, np.float64),
            guidance=GUIDANCE,
            alignment=ALIGNMENT,
        )
        return latent_sampling.peers(
            weights.official("diff_foley/ldm", self.network.state),
            self.task.config.model.to_dict(),
            self.classifier
            and weights.official("diff_foley/guidance_classifier", self.classifier.state),
            guided,
            given,
            latent_sampling.Audio(
                mel.mel_basis(self.spec),
                self.spec.n_fft,
                self.spec.hop,
                griffin_lim.INVERSION_ITERATIONS,
                griffin_lim.GriffinLim().iterations,
            ),
            ours=ask.dtype,
        )


def ldm_train(ask: case.Ask) -> Iterator[case.Case]:
    """One update of the U-Net and the conditioner, from audio and features."""
    config = stage(ask)
    on_cpu = jax.default_backend() == "cpu"
    for batch in ask.of(tiny=(2,), small=(2,), paper=(1,) if on_cpu else (32,)):
        given = train_batch(config, batch)
        made = steps.Step(config, given)
        yield case.Case(
            "ldm_train",
            f"batch {batch}",
            ask.size,
            made.program,
            batch,
            "window",
            _train_peers(ask, made, given),
            tolerance=ask.tolerance(1e-4, 2e-2),
            output=steps.compared,
            note="torch is given the mels, ours makes them; no recomputation on either side",
        )


def train_batch(config: ml_collections.ConfigDict, batch: int) -> dict[str, np.ndarray]:
    """Noise as int16 audio, unit features."""
    rng = np.random.default_rng(0)
    audio = specs.AudioSpec(**config.audio)
    frames, rows = config.data.window_frames, config.data.num_rows
    waveform = rng.normal(0.0, 3000.0, (batch, 2, int(RECORD_S * audio.sample_rate_hz) - 1))
    cavp_BLD = rng.standard_normal((batch, rows, config.model.conditioner.in_dim), np.float32)
    return {
        "audio_BPL": waveform.astype(np.int16),
        "mel_frame_BT": np.tile(np.arange(frames, dtype=np.int32), (batch, 1)),
        "cavp_BLD": cavp_BLD / np.linalg.norm(cavp_BLD, axis=-1, keepdims=True),
        "context_s_BL": np.tile(np.arange(rows, dtype=np.float32) / 4, (batch, 1)),
    }


def _train_peers(
    ask: case.Ask, made: steps.Step, batch: Mapping[str, np.ndarray]
) -> dict[str, case.Peer]:
    if not ask.peers or stable_diffusion.absent():
        return {}
    from foley_jax.bench.peers import latent_training

    task, config = made.task, made.config
    b = len(batch["cavp_BLD"])
    latent_key, t_key, noise_key, _ = steps.keys(config, 4)
    with steps.on_one_device():
        mel_BFT = jax.jit(task.mels)({k: jnp.asarray(v) for k, v in batch.items()})
    mel_BFT = np.asarray(mel_BFT)
    down = 2 ** (len(config.model.autoencoder.ch_mult) - 1)
    shape = (b, *(n // down for n in mel_BFT.shape[1:]), config.model.autoencoder.z_channels)
    t_B = gaussian.draw_steps(task.schedule, b, t_key, train=True)
    table = np.asarray(task.schedule.alphas_cumprod)[np.asarray(t_B)]
    given = latent_training.Given(
        mel_BFT=mel_BFT,
        features_BLD=batch["cavp_BLD"],
        posterior_BHWC=np.asarray(jax.random.normal(latent_key, shape)),
        noise_BHWC=np.asarray(gaussian.noise_like(jnp.zeros(shape), key=noise_key)),
        t_B=np.asarray(task.schedule.model_times)[np.asarray(t_B)],
        abar_B=table,
        latent_scale=config.model.latent_scale,
    )
    official = weights.official("diff_foley/ldm", made.whole_state())
    return latent_training.peers(
        official, config.model.to_dict(), given, config.optimizer.to_dict(), ours=ask.dtype
    )
