"""Tests what stops being finite on the way is named by step, window and term, and fails alone."""

import dataclasses

import filled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_foley

from foley_jax import generate, sample
from foley_jax.diff_foley import sources as sources_lib
from foley_jax.diff_foley.sampling import pipeline, solve
from foley_jax.diffusion import finite, schedule
from foley_jax.diffusion.samplers import ddim, dpm_multistep, dpm_singlestep, plms, zero_shot
from tests.media import media_files
from tests.mm_diffusion import sounding_config

pytestmark = pytest.mark.usefixtures("quick_compilation")
SCHEDULE = schedule.scaled_linear()


def _broken_below(time, item=1):
    """An eps denoiser that gives nan for one item from a model time on."""

    def denoise(x_BN, t_B):
        broken_B1 = ((t_B < time) & (jnp.arange(len(t_B)) == item))[:, None]
        return jnp.where(broken_B1, jnp.nan, 0.1 * x_BN)

    return denoise


def _watched(sampler, denoise, count=3, **options):
    watch = finite.Watch()
    watched = watch.around("network", denoise, of_input=True)
    x_T = jax.random.normal(jax.random.key(0), (count, 4))
    run = jax.jit(lambda x_T: sampler(watched, SCHEDULE, x_T, **options))
    jax.block_until_ready(run(x_T))
    return watch, run, x_T


@pytest.mark.parametrize(
    "sampler, options, step, steps",
    [
        (dpm_multistep.sample, {"num_steps": 5}, 3, 5),  # 999, 799, 599, 400, 200
        (ddim.sample, {"num_steps": 5}, 3, 5),  # 801, 601, 401, 201, 1
        (plms.sample, {"num_steps": 5}, 3, 5),
        (dpm_singlestep.sample, {"num_steps": 6, "order": 1}, 3, 6),
    ],
    ids=["dpm_solver", "ddim", "plms", "singlestep"],
)
def test_the_first_step_term_and_item_are_named(sampler, options, step, steps):
    if sampler is dpm_singlestep.sample:
        times = dpm_singlestep.plan(SCHEDULE, 6, 1, integer_times=True)[0][1].times_NK[:, 0]
    else:
        times = {dpm_multistep.sample: [999, 799.2, 599.4, 399.6]}.get(
            sampler, [801, 601, 401, 201]
        )
    limit = (times[step - 2] + times[step - 1]) / 2
    watch, run, x_T = _watched(sampler, _broken_below(limit), **options)
    found = watch.first()
    assert (found.step, found.steps, found.term, found.item) == (step, steps, "network", 1)
    assert found.time == pytest.approx(times[step - 1], abs=0.1)
    assert f"the network at solver step {step} of {steps} (time " in found.words
    assert watch.first() is None  # it was told
    jax.block_until_ready(run(x_T))
    assert watch.first() == found


def test_what_the_solver_makes_is_told_from_what_the_network_says():
    def huge(x_BN, t_B):
        return jnp.full_like(x_BN, 3e38)  # finite; a step of it is not

    watch, _, _ = _watched(dpm_multistep.sample, huge, num_steps=4)
    found = watch.first()
    assert (found.step, found.term, found.item) == (2, finite.INPUT, 0)


def test_parts_are_terms_of_their_own_also_under_a_gradient():
    def denoise(x, t_B):
        broken = jnp.where(t_B[0] < 600, jnp.inf, 0.0)
        return {"video": 0.1 * x["video"], "audio": 0.1 * x["audio"] + broken}

    def run(watch):
        watched = watch.around("network", denoise, of_input=True)

        def one(key):
            x_T = {"video": jax.random.normal(key, (1, 3)), "audio": jnp.ones((1, 2))}
            guidance = zero_shot.Guidance(strength=0.1)
            known = {"video": jnp.zeros((1, 3))}
            return zero_shot.sample(
                watched, SCHEDULE, x_T, known, key=key, num_steps=4, guidance=guidance
            )

        return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 2))

    watch = finite.Watch()
    jax.block_until_ready(run(watch))
    found = watch.first()
    assert (found.step, found.steps, found.term) == (3, 4, "network (audio)")


def test_a_watched_run_gives_what_the_run_gives():
    watch, run, x_T = _watched(ddim.sample, lambda x, t: 0.1 * x, num_steps=4)
    plain = jax.jit(lambda x_T: ddim.sample(lambda x, t: 0.1 * x, SCHEDULE, x_T, num_steps=4))
    np.testing.assert_allclose(run(x_T), plain(x_T), atol=1e-6)
    assert watch.first() is None


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tiny_foley.save_runs(tmp_path_factory.mktemp("runs"))
    filled.save_run(folder / "mm", sounding_config.tiny())
    return folder


@pytest.fixture(scope="module")
def foley(runs):
    return sample.load(runs / "ldm")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three of one window, and one of several."""
    folder = tmp_path_factory.mktemp("videos")
    return tiny_foley.write_videos(folder, (0.8, 0.9, 1.0, 3.0))


@pytest.fixture
def one_overflows(foley, monkeypatch):
    """The features of v0.9 are finite, but too large for the network; v3.0's at its end only."""
    view = sources_lib.view

    def overflowing(sources, *args, **options):
        seen, features = view(sources, *args, **options)
        for source, features_TD in zip(sources, features):
            if source.path.stem == "v0.9":
                features_TD *= np.float32(1e30)
            elif source.path.stem == "v3.0":
                features_TD[-2:] *= np.float32(1e30)
        return seen, features

    monkeypatch.setattr(sources_lib, "view", overflowing)
    return foley


@pytest.mark.slow
def test_the_network_of_one_video_fails_it_alone(one_overflows, videos):
    settings = pipeline.Settings(steps=2)
    sources = [one_overflows.read(video) for video in videos]
    made = [result for (result,) in one_overflows.model.generate(sources, settings)]
    assert [bool(result.fault) for result in made] == [False, True, False, True]
    assert all(np.isfinite(made[i].audio).all() for i in (0, 2))
    said = "its audio is not finite, beginning with the network at solver step 1 of 2 (time 999)"
    assert made[1].fault.startswith(f"{said}, window 1 of 1 (0.0 to 1.0 s); check the checkpoint")
    assert made[3].fault.startswith(said)
    assert "window 1 of" not in made[3].fault  # its beginning is audio
    with pytest.raises(ValueError, match="v0.9.mp4: its audio is not finite, .* step 1 of 2"):
        one_overflows(videos[1], steps=2)


def test_the_command_saves_all_others_and_says_why(
    one_overflows, runs, videos, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sample, "load", lambda model, **networks: one_overflows)
    arguments = [*map(str, videos[:3]), f"--model={runs / 'ldm'}", "--steps=2"]
    assert sample.main([*arguments, f"--out={tmp_path}"]) == 1
    said = capsys.readouterr().err
    assert "v0.9.mp4: its audio is not finite, beginning with the network at solver step" in said
    assert sorted(path.stem for path in tmp_path.glob("*.mp4")) == ["v0.8", "v1.0"]


def test_one_sample_of_a_video_fails_alone(foley, videos, tmp_path, monkeypatch):
    """The others of the same video are saved, ranked and not made again."""
    vocode = foley.model.vocode

    def broken(mels_FT, lengths):
        audios = vocode(mels_FT, lengths)
        audios[1] = np.full_like(audios[1], np.nan)
        return audios

    monkeypatch.setattr(foley.model, "vocode", broken)
    clips = foley(videos[0], steps=2, num_samples=3, keep_best=3)
    assert [clip.sample for clip in clips][-1] == 1  # last, whatever its scores
    assert "beginning with the audio of the vocoder" in clips[-1].fault
    settings = pipeline.Settings(steps=2)
    report = generate.run(foley, videos[:1], tmp_path, 3, settings=settings)
    (reason,) = report.failures.values()
    assert reason.startswith("sample 1: its audio is not finite, beginning with the audio of the")
    assert [(f / "v0.8.wav").exists() for f in report.folders] == [True, False, True]
    monkeypatch.undo()
    drawn, draft = [], foley.model.draft

    def recorded(sources, settings, draws):
        drawn.extend(draws)
        return draft(sources, settings, draws)

    monkeypatch.setattr(foley.model, "draft", recorded)
    assert not generate.run(foley, videos[:1], tmp_path, 3, settings=settings).failures
    assert drawn == [[pipeline.NoiseSeed(0, 1)]]


def test_guidance_that_overflows_is_named(foley, videos):
    with pytest.raises(ValueError, match="classifier-free guidance at solver step 1 of 3.*smaller"):
        foley(videos[3], steps=3, guidance=3e38)


@pytest.mark.slow
def test_an_alignment_gradient_that_overflows_is_named(runs, videos, monkeypatch):
    steep = solve._log_prob
    monkeypatch.setattr(solve, "_log_prob", lambda *args: 1e6 * steep(*args))
    guided = sample.load(runs / "ldm", classifier=runs / "alignment")
    with pytest.raises(
        ValueError, match="the alignment gradient at solver step 1 of 2.*smaller --"
    ):
        guided(videos[0], steps=2, alignment=3e38)


def test_features_and_autoencoder_are_told_from_the_network(foley, videos, monkeypatch):
    decode, view = foley.model.sampler._decode, sources_lib.view
    monkeypatch.setattr(foley.model.sampler, "_decode", lambda *args: decode(*args) * np.inf)
    with pytest.raises(
        ValueError, match="beginning with the mel of the autoencoder, window 1 of 1"
    ):
        foley(videos[0], steps=2)
    monkeypatch.undo()

    def lost(*args, **options):
        seen, features = view(*args, **options)
        return seen, [features_TD * np.nan for features_TD in features]

    monkeypatch.setattr(sources_lib, "view", lost)
    with pytest.raises(ValueError, match=r"features of the video \(CAVP\), window 1 of 1"):
        foley(videos[0], steps=2)


@pytest.mark.slow
def test_the_network_of_sounding_videos_fails_one_clip_alone(runs, tmp_path, capsys, monkeypatch):
    """One of two clips; video and audio of the other are saved, no nan becomes an image."""
    av = sample.load(runs / "mm")
    program = av.model._program

    def broken(settings):
        run = program(settings)

        def spoilt(keys_B, shift_key, known):
            out = {name: np.array(part) for name, part in run(keys_B, shift_key, known).items()}
            out["video"][1] = np.nan
            return out

        return spoilt

    monkeypatch.setattr(av.model, "_program", broken)
    monkeypatch.setattr(av.model, "_watched", lambda own: (program(own), finite.Watch()))
    monkeypatch.setattr(sample, "load", lambda model, **networks: av)
    arguments = [f"--model={runs / 'mm'}", "--num_samples=2", "--sampler=ddim", "--steps=3"]
    assert sample.main([*arguments, f"--out={tmp_path}"]) == 1
    said = capsys.readouterr().err
    assert "sample_0001: it is not finite beside others, but is alone; use --group=1" in said
    assert [path.stem for path in tmp_path.glob("*.mp4")] == ["sample_0000"]


@pytest.fixture
def overflowing(runs):
    """A model of sounding videos whose network overflows at once."""
    av = sample.load(runs / "mm")
    state = jax.tree.map(lambda leaf: leaf * np.float32(1e30), av.model._network.state)
    av.model._network = dataclasses.replace(av.model._network, state=state)
    return av


@pytest.mark.slow
def test_step_and_stream_of_a_sounding_video_are_named(overflowing, tmp_path):
    (clip,) = overflowing.generate(steps=3, sampler="ddim")
    assert clip.fault.startswith("it is not finite, beginning with the network (")
    assert ") at solver step 1 of 3 (time " in clip.fault
    assert ", window 1 of 1 (0.0 to 0.4 s); check the checkpoint" in clip.fault
    with pytest.raises(ValueError, match="it is not finite, beginning with the network"):
        clip.save(tmp_path / "x.mp4")


@pytest.mark.slow
def test_a_given_image_whose_audio_overflows_is_named(overflowing, tmp_path):
    media_files.write(tmp_path / "silent.mp4", seconds=0.4, audio=False)
    with pytest.raises(ValueError, match="silent.mp4: it is not finite, .* at solver step 1 of 2"):
        overflowing.audio_for(tmp_path / "silent.mp4", steps=2)


def test_nothing_of_this_is_in_the_program_of_a_usual_run(foley, videos):
    """No host is asked, and nothing is made twice, while all is finite."""
    sampler = foley.model.sampler
    made, run = [], sampler._run

    def recorded(*args, watched):
        made.append(watched)
        return run(*args, watched=watched)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "_run", recorded)
        foley(videos[0], steps=2)
    assert made == [False]
