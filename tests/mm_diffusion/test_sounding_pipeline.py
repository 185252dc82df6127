"""Clips from a tiny filled model: what depends on what, and what is kept."""

import contextlib
import dataclasses

import filled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diffusion.samplers import zero_shot
from foley_jax.mm_diffusion.sampling import pipeline, solve
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.runtime import network as network_lib
from tests.mm_diffusion import sounding_config

pytestmark = pytest.mark.usefixtures("quick_compilation")

FEW = {"steps": 3}


def load(config, upscaler=None, **options):
    network = lambda c: network_lib.Network.of(filled.model(c))  # noqa: E731
    large = {"upscaler": network(upscaler), "upscaler_config": upscaler} if upscaler else {}
    return pipeline.MMDiffusion(network(config), config, **large, **options)


@pytest.fixture(scope="module")
def model():
    return load(sounding_config.tiny(), device_clips=2)


def noise(*names):
    return [pipeline.Request(name) for name in names]


def frames(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


@pytest.mark.slow
def test_a_clip_depends_on_seed_and_name_and_not_on_its_neighbours(model):
    settings = pipeline.Settings(**FEW)
    a, b, c = model.make(noise("a", "b", "c"), settings)
    assert a.frames_THWC.shape == (4, 8, 8, 3) and a.frames_THWC.dtype == np.uint8
    assert a.audio.shape == (3200,) and a.audio.dtype == np.float32
    (alone,) = model.make(noise("b"), settings)
    np.testing.assert_allclose(alone.audio, b.audio, atol=5e-4)  # batches of 1 and 2
    assert np.abs(alone.frames_THWC.astype(int) - b.frames_THWC).max() <= 1
    assert np.abs(a.audio - c.audio).max() > 0.01
    (other,) = model.make(noise("b"), dataclasses.replace(settings, seed=1))
    assert np.abs(other.audio - b.audio).max() > 0.01


@pytest.mark.slow
def test_every_batch_and_enlargement_is_watched(model):
    stages = []

    def watch(stage):
        stages.append(stage)
        return contextlib.nullcontext()

    settings, run = pipeline.Settings(**FEW), pipeline.Run(watch=watch)
    model.within(run).make(noise("a", "b", "c"), settings)
    assert stages == ["diffusion", "diffusion"]  # two at a time
    large = load(sounding_config.tiny(), sounding_config.tiny_upscaler(), device_clips=2)
    large.within(run).make(noise("a"), settings)
    assert stages[2:] == ["diffusion", "super-resolution"]
    assert model.run == pipeline.Run()


@pytest.mark.slow
def test_devices_share_the_clips(model):
    """Five clips on four devices, two at a time on each."""
    settings = pipeline.Settings(**FEW)
    shared = load(sounding_config.tiny(), device_clips=2, mesh=mesh_lib.local_mesh(4))
    assert shared.num_devices == 4
    for one, other in zip(
        model.make(noise(*"abcde"), settings), shared.make(noise(*"abcde"), settings), strict=True
    ):
        np.testing.assert_allclose(other.audio, one.audio, atol=5e-4)
        assert np.abs(other.frames_THWC.astype(int) - one.frames_THWC).max() <= 1
    keys = jax.random.split(jax.random.key(0), 8)
    out = shared._program(settings)(keys, keys[0], {})
    assert out["video"].sharding.num_devices == 4
    assert out["video"].addressable_shards[0].data.shape[0] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    ["dpm_solver++", pytest.param("adaptive", marks=pytest.mark.slow), "ddim", "ddpm"],
)
def test_every_sampler_makes_finite_clips(model, sampler):
    (clip,) = model.make(noise("a"), pipeline.Settings(sampler=sampler, **FEW))
    assert np.isfinite(clip.audio).all() and clip.frames_THWC.std() > 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["replacement", "gradient"])
def test_given_image_is_kept_and_its_audio_has_its_length(model, method):
    given = frames(9)  # windows of 4 frames at 0, 4 (overlap rounds to 0) and 5
    request = pipeline.Request("v", frames_THWC=given)
    settings = pipeline.Settings(method=method, scale=0.01, **FEW)
    (clip,) = model.make([request], settings)
    np.testing.assert_array_equal(clip.frames_THWC, given)
    assert clip.audio.shape == (7200,) and np.isfinite(clip.audio).all()
    (other,) = model.make([request._replace(frames_THWC=frames(9, 1))], settings)
    assert np.abs(other.audio - clip.audio).max() > 1e-3  # the video is heard


@pytest.mark.slow
def test_given_audio_is_kept_and_its_image_has_its_length(model):
    audio = np.random.default_rng(0).uniform(-0.3, 0.3, 2000).astype(np.float32)
    request = pipeline.Request("s", audio_L=audio)
    (clip,) = model.make([request], pipeline.Settings(**FEW))
    np.testing.assert_array_equal(clip.audio, audio)
    assert clip.frames_THWC.shape == (3, 8, 8, 3)  # 0.25 s at 10 fps


def test_guidance_scale_zero_is_replacement():
    gradient = pipeline.Settings(method="gradient", scale=0.0)
    assert solve.guidance(gradient, 10) == solve.guidance(
        pipeline.Settings(method="replacement"), 10
    )


@pytest.mark.slow
def test_super_resolution_enlarges_generated_images_only():
    model = load(sounding_config.tiny(), sounding_config.tiny_upscaler())
    (large,) = model.make(noise("a"), pipeline.Settings(**FEW))
    assert large.frames_THWC.shape == (4, 16, 16, 3)
    (small,) = model.make(noise("a"), pipeline.Settings(super_resolve=False, **FEW))
    assert small.frames_THWC.shape == (4, 8, 8, 3)
    np.testing.assert_array_equal(small.audio, large.audio)


@pytest.mark.slow
def test_seeds_share_one_program(model):
    before = len(model._programs)
    for seed in (5, 6):
        model.make(noise("a"), pipeline.Settings(seed=seed, steps=2))
    assert len(model._programs) == before + 1


def test_official_scale_is_the_scripts_flag_in_our_unit():
    official = solve.guidance(pipeline.Settings(preset="official"), 196608)
    assert official == zero_shot.Guidance(3 * 2**20 / 196608, "signal", "fixed")
    ours = solve.guidance(pipeline.Settings(scale=2.0), 196608)
    assert ours == zero_shot.Guidance(2.0, "noise", "fresh")


def test_shifts_change_from_step_to_step(model):
    drawn = []

    class Network:
        def draw_shifts(self, key, num_frames):
            drawn.append((jax.random.key_data(key).tolist(), num_frames))
            return

        def __call__(self, video, audio, t_B, shifts_N):
            return video, audio

    denoise = solve.eps(Network(), model._about, jax.random.key(0))
    x = {k: jnp.zeros(s.shape) for k, s in model._about.shapes.items()}
    for time in (10.0, 500.0, 10.0):
        denoise(x, jnp.full((1,), time))
    assert drawn[0] == drawn[2] != drawn[1] and drawn[0][1] == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sampler": "euler"}, "sampler is 'euler', expected one of dpm_solver"),
        ({"method": "magic"}, "method is 'magic'"),
        ({"preset": "paper"}, "preset is 'paper'"),
        ({"steps": 1}, "steps is 1"),
        ({"scale": -1.0}, "scale is -1.0"),
    ],
)
def test_bad_settings_say_what_is_wanted(fields, message):
    with pytest.raises(ValueError, match=message):
        pipeline.Settings(**fields)
