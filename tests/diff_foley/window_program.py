"""The smallest sampling program with a classifier: five windows of one audio clip."""

import functools

import filled
import jax.numpy as jnp
import numpy as np
import tiny_foley

from foley_jax.diff_foley.sampling import (
    feature_cache,
    packed_windows,
    pipeline,
    solve,
)
from foley_jax.diffusion import windows
from foley_jax.media import specs
from foley_jax.runtime import network as network_lib
from foley_jax.training import task as task_lib

EXACT = feature_cache.FeatureCache()
SCALES = (jnp.float32(4.5), jnp.float32(50.0))


@functools.cache
def networks():
    """The latent diffusion model and the alignment classifier, no layer zero."""
    return [
        network_lib.Network.of(filled.model(c())) for c in (tiny_foley.ldm, tiny_foley.alignment)
    ]


def program(
    batch,
    steps,
    guided=True,
    preset="default",
    sampler="dpm_solver",
    cache=EXACT,
):
    """A sampling program of five windows: traceable, and its arguments."""
    config = tiny_foley.ldm()
    model = networks()[0].module()
    audio, video = specs.AudioSpec(**config.audio), specs.VideoSpec(**tiny_foley.cavp().video)
    window = pipeline.window_of(model, config, audio, video)
    plan = windows.plan(2 * window.num_features, window)
    features_RD = np.random.default_rng(0).standard_normal((2 * window.num_features, 8))
    features_RD /= np.linalg.norm(features_RD, axis=1, keepdims=True)
    request = packed_windows.Request(
        plan, features_RD.astype(np.float32), "x", packed_windows.NoiseSeed(0)
    )
    packed, _, batch = packed_windows.pack_windows([request], window, batch)
    shape = model.latent_shape(audio.num_mels, config.data.window_frames)
    task = task_lib.resolve(config)
    fixed = solve.Program(
        task.schedule,
        config.loss.prediction,
        shape,
        steps,
        sampler,
        preset,
        True,
        batch,
        cache,
    )

    def run(states, packed, raw_features_RD=None):
        model, classifier = (n.module(s) for n, s in zip(networks(), states))
        classifier = classifier if guided else None
        return solve.sample(fixed, model, classifier, packed, *SCALES, raw_features_RD)

    return run, ([n.state for n in networks()], packed), fixed
