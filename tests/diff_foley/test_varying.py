"""Audio varied: sampling begins with it, noised; a little keeps it nearly as it was."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_foley

from foley_jax import sample
from foley_jax.diff_foley.sampling import packed_windows, settings
from foley_jax.diffusion import gaussian, schedule, varying, windows
from foley_jax.diffusion.samplers import ddim, dpm_multistep
from foley_jax.inference import edits
from foley_jax.media import audio as audio_io
from foley_jax.media import editing
from foley_jax.media import mel as mel_lib

RATE = 16000
SAMPLERS = [ddim, dpm_multistep]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("skip", [1, 24])
def test_the_steps_that_stay_are_those_of_the_whole_walk(sampler, skip):
    """A denoiser that knows the data walks through its noised states, so it may begin with one."""
    table = schedule.scaled_linear()
    clean, noise = jax.random.normal(jax.random.key(0), (2, 1, 6))
    seen = []

    def denoise(x, t):
        jax.debug.callback(lambda x, t: seen.append((float(t[0]), np.array(x))), x, t)
        return gaussian.to_eps(table, x, t, clean, "x0")

    time = sampler.starts_at(table, 25, skip)
    x_t = varying.noised(table, clean, noise, time)
    made = sampler.sample(denoise, table, x_t, num_steps=25, skip=skip)
    assert len(seen) == 25 - skip and seen[0][0] == time
    np.testing.assert_array_equal(seen[0][1], x_t)
    alpha, sigma = table.alpha_sigma_at(jnp.float32(seen[-1][0]))
    np.testing.assert_allclose(seen[-1][1], alpha * clean + sigma * noise, atol=2e-4)
    # both end at the noise of the first step of the table, 0.03 of the data's scale
    np.testing.assert_allclose(made, clean, atol=0.08)
    assert all(a > b for (a, _), (b, _) in zip(seen, seen[1:]))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_step_left_out_is_the_usual_walk(sampler):
    table = schedule.scaled_linear()
    x_T = jax.random.normal(jax.random.key(1), (1, 6))
    usual, same = (
        sampler.sample(lambda x, t: 0.1 * x, table, x_T, num_steps=4, **more)
        for more in ({}, {"skip": 0})
    )
    np.testing.assert_array_equal(usual, same)


def test_the_strength_is_a_share_of_the_steps():
    found = [varying.skipped(strength, 25) for strength in (1, 0.999, 0.5, 0.1, 1e-6)]
    assert found == [0, 1, 13, 23, 24]
    assert varying.skipped(0.5, 2) == varying.skipped(0.01, 2) == 1


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"vary": 0.0}, "vary is 0.0, expected a finite number above 0"),
        ({"vary": 1.5}, "vary is 1.5, expected a number above 0 and of at most 1"),
        ({"vary": 0.5, "sampler": "plms"}, "begins with noise alone; give vary=1"),
        ({"vary": 0.5, "preset": "official"}, "'official' makes all anew"),
    ],
)
def test_what_cannot_be_varied_is_told(fields, told):
    with pytest.raises(ValueError, match=told):
        settings.Settings(**fields)


def test_only_what_does_something_is_recorded():
    usual = settings.Settings()
    assert {**usual.record(), "vary": 1.0} == dataclasses.asdict(usual)
    assert settings.Settings(vary=0.5).record()["vary"] == 0.5


def test_audio_has_to_be_as_long_as_the_video():
    audio_L = np.zeros(RATE, np.float32)
    assert editing.whole(audio_L, RATE, 1.05).audio_L is audio_L
    told = r"lasts 1.00 s, the video 2.50 s; .*regenerate=\(1.00, 2.50\)"
    with pytest.raises(ValueError, match=told):
        editing.whole(audio_L, RATE, 2.5)
    kept = editing.whole(audio_L, RATE, 1.0)
    for varied, vary, wanted in ((None, 0.5, "some"), (kept, 1.0, "none")):
        with pytest.raises(ValueError, match=f"expected {wanted} audio"):
            editing.check_given(varied, vary)


def test_latents_lie_where_their_clip_does_on_the_tape():
    spec = windows.WindowSpec(num_features=4, num_columns=8, feature_s=0.25, column_s=0.125)
    plan = windows.plan(4, spec)
    features_RD = np.ones((4, 3), np.float32)
    own = [np.full((2, 8, 1), value, np.float32) for value in (1, 2)]
    requests = [
        packed_windows.Request(plan, features_RD, "a", packed_windows.NoiseSeed(0, i), None, z)
        for i, z in enumerate(own)
    ]
    packed, starts, _ = packed_windows.pack_windows(requests, spec, 4)
    for start, z_HWC in zip(starts, own):
        np.testing.assert_array_equal(packed.varied_HWC[:, start : start + 8], z_HWC)
    bare = [request._replace(varied_HWC=None) for request in requests]
    assert packed_windows.pack_windows(bare, spec, 4)[0].varied_HWC is None


@pytest.mark.slow
def test_less_strength_is_nearer_to_the_old_audio(tmp_path):
    foley = sample.load(tiny_foley.save_runs(tmp_path / "runs") / "ldm")
    (video,) = tiny_foley.write_videos(tmp_path, [1.0])
    audio_L = 0.3 * np.sin(np.arange(RATE) ** 1.5 / 300).astype(np.float32)
    audio_io.write_wav(tmp_path / "old.wav", audio_L, RATE)
    source = foley.read(video)
    old = edits.edited(source, RATE, vary=0.1, audio=tmp_path / "old.wav")
    made = {
        (vary, seed): foley.model.draft(
            [source if vary == 1 else old], settings.Settings(seed=seed, steps=10, vary=vary)
        )[0].mel_FT
        for vary in (0.1, 1)
        for seed in (1, 2)
    }
    known_FT = np.asarray(mel_lib.log_mel(old.varied.audio_L[None], foley.model.audio))[0][:, :64]
    known_FT = np.asarray(foley.model._decode(known_FT[None]))[0]

    def away(vary, seed):
        return np.abs(made[vary, seed][:, :64] - known_FT).mean()

    assert max(away(0.1, 1), away(0.1, 2)) < 0.5 * min(away(1, 1), away(1, 2)), made.keys()
    differing = [np.abs(made[vary, 1] - made[vary, 2]).mean() for vary in (0.1, 1)]
    assert 0 < differing[0] < differing[1]  # the noise counts, and for less
    with pytest.raises(ValueError, match="vary is 0.5; expected some audio"):
        foley.model.draft([source], settings.Settings(vary=0.5))
    with pytest.raises(ValueError, match="regenerate makes a span wholly anew, vary=0.5"):
        foley(video, vary=0.5, regenerate=(0.2, 0.4), audio=tmp_path / "old.wav")
