"""Sampling with the small official flow network against the official trajectories."""

import functools

import jax
import jax.numpy as jnp
import mmaudio_goldens
import numpy as np
import pytest

from foley_jax.diffusion import flow, guidance

pytestmark = pytest.mark.usefixtures("quick_compilation")
TRAJECTORY = 1e-4  # 25 steps; the official code against float64: 2e-6 after 4
ADAPTIVE = 1e-3  # steps are chosen by the data


def velocity(model, x, scale):
    """The guided velocity; the null condition has the negative text."""
    conditions = model.preprocess_conditions(x["clip"], x["sync"], x["text"])
    null = model.empty_conditions(3, x["negative"], **mmaudio_goldens.LENGTHS)
    return guidance.classifier_free(model.predict_flow, conditions, null, scale)


def follow(scale, **options):
    """Returns x after following the flow, and the same un-normalised."""

    def sampled(model, x):
        end = flow.sample(velocity(model, x, scale), x["latent"], **options)
        return end, model.unnormalise(end)

    return mmaudio_goldens.run(
        mmaudio_goldens.tiny("tiny"), sampled, mmaudio_goldens.tiny_inputs("tiny")
    )


@pytest.mark.slow
def test_25_guided_steps_are_the_official_ones():
    want = mmaudio_goldens.golden("tiny")
    end, latents = follow(4.5)
    assert mmaudio_goldens.distance(end, want["euler25/end"]) <= TRAJECTORY
    assert mmaudio_goldens.distance(latents, want["euler25/unnormalised"]) <= TRAJECTORY


@pytest.mark.slow  # three programs
@pytest.mark.parametrize(
    ("case", "scale", "options"),
    [
        ("no_guidance/end", 1, {}),
        ("back_to_noise", 1, {"start": 1.0, "stop": 0.0}),
        ("min_sigma/end", 2.0, {"num_steps": 10, "stop": 0.9}),
    ],
)
def test_other_ways_are_the_official_ones(case, scale, options):
    end, _ = follow(scale, **options)
    assert mmaudio_goldens.distance(end, mmaudio_goldens.golden("tiny_more")[case]) <= TRAJECTORY


def test_noise_that_is_left_is_the_official_one():
    want, x = mmaudio_goldens.golden("tiny_more"), mmaudio_goldens.tiny_inputs("tiny")
    noise, data = x["latent"], x["negative"][:, :1, :8] + x["latent"]
    point = flow.on_path(jnp.asarray(noise), jnp.asarray(data), jnp.asarray(x["t"]), 0.1)
    assert mmaudio_goldens.distance(np.asarray(point), want["min_sigma/xt"]) <= 1e-6
    fixed = lambda x_t, t_B: jnp.asarray(x["latent"])  # noqa: E731
    loss_fn = functools.partial(flow.training_loss, fixed, min_sigma=0.1)
    loss_B = jax.jit(loss_fn)(jnp.asarray(data), jnp.asarray(x["t"]), jnp.asarray(noise / 2))
    assert mmaudio_goldens.distance(np.asarray(loss_B), want["min_sigma/loss"]) <= 1e-6


@pytest.mark.slow  # its loop takes long to compile
def test_adaptive_steps_end_where_the_official_ones_do():
    def sampled(model, x):
        return flow.sample_adaptive(velocity(model, x, 4.5), x["latent"])

    end = mmaudio_goldens.run(
        mmaudio_goldens.tiny("tiny"), sampled, mmaudio_goldens.tiny_inputs("tiny")
    )
    assert (
        mmaudio_goldens.distance(end, mmaudio_goldens.golden("tiny_more")["adaptive/end"])
        <= ADAPTIVE
    )
