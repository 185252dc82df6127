"""From frames and text to audio, with tiny networks."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import mmaudio_goldens
import numpy as np
import pytest
import tiny_mmaudio

from foley_jax.diffusion import flow, guidance
from foley_jax.mmaudio import rates as rates_lib
from foley_jax.mmaudio import sources
from foley_jax.mmaudio.sampling import features, pipeline, solve, window_spec
from tests.media import media_files

pytestmark = pytest.mark.usefixtures("quick_compilation")
FAST = {"steps": 2}
LIMIT = 3e-5  # relative L2: float32 in another order, in batches of other sizes


@pytest.fixture(scope="module")
def model(quick_compilation):
    return tiny_mmaudio.make()


def film(name, seconds, seed=0):
    """A source of noise."""
    rng = np.random.default_rng(seed)

    def frames(fps, size):
        return rng.integers(0, 256, (round(seconds * fps), size, size, 3), np.uint8)

    return pipeline.Source(Path(name), frames(8, 12), frames(25, 8), seconds)


def audio(model, source, **settings):
    (result,) = model.generate([source], pipeline.Settings(**{**FAST, **settings}))
    assert not result[0].fault
    return result[0].audio


@pytest.mark.parametrize("name", ["16k", "44k"])
@pytest.mark.parametrize("seconds", [0.1, 8.0, 8.3, 30.0, 301.7])
def test_windows_cover_the_time_and_begin_together(name, seconds):
    spec = window_spec.window_spec(rates_lib.RATES[name])
    plan = window_spec.plan(seconds, spec)
    assert plan[0] == (0, 0)
    assert plan[-1].column * spec.column_s + 8.0 >= seconds
    for window in plan:
        start_s = window.feature * spec.feature_s
        assert abs(window.column * spec.column_s - start_s) <= 0.0201
        assert abs(spec.clip_of(window.feature) / 8 - start_s) <= 0.0201
    steps = np.diff([w.feature for w in plan])
    assert all(1 <= step <= 19 for step in steps)
    assert (len(plan) == 1) == (seconds <= 8.0)


@pytest.mark.parametrize("count", [1, 8, 15, 16, 17, 40])
def test_segments_go_on_behind_the_end_with_its_last_frame(count):
    frames = [np.full((2, 2, 3), i, np.uint8) for i in range(count)]
    found = [group[:, 0, 0, 0] for group, _ in features.segments(frames)]
    for i, segment in enumerate(found):
        np.testing.assert_array_equal(segment, np.minimum(8 * i + np.arange(16), count - 1))
    assert (found[-1] == count - 1).all() and 8 * (len(found) - 1) >= count - 7


def test_one_window_is_the_network_followed_by_itself(model):
    """The pipeline's program against the plain steps that it stands for."""
    source, settings = film("a.mp4", tiny_mmaudio.WINDOW_S), pipeline.Settings(text="a", **FAST)
    ((clip_TD, sync_TD),) = model._features([source])
    spec = model.window
    plan = window_spec.plan(source.duration_s, spec)
    request = pipeline._Request(plan, clip_TD, sync_TD, "a", 0)
    packed, batch = model._packed([request], spec, settings)
    x_WC = solve.noise(packed, 20)
    program = solve.Program(2, "euler", True, batch)
    run = jax.jit(lambda model, packed, x_WC: solve.solve(program, model, packed, x_WC, 4.5))
    got = run(tiny_mmaudio.flow(), jax.tree.map(jnp.asarray, packed), x_WC)

    @jax.jit
    def plain(network, x_WC):
        text = model.text_features("a")
        conditions = network.preprocess_conditions(clip_TD[None, :15], sync_TD[None, :40], text)
        null = network.empty_conditions(1, clip_length=15, sync_length=40)
        v = guidance.classifier_free(network.predict_flow, conditions, null, 4.5)
        return network.unnormalise(flow.sample(v, x_WC[None, :60], num_steps=2))[0]

    want = plain(tiny_mmaudio.flow(), x_WC)
    np.testing.assert_allclose(got[:60], want, atol=1e-4 * float(jnp.abs(want).max()))


def test_audio_is_as_long_as_the_video(model):
    for seconds in (0.5, 5.3):
        assert len(audio(model, film("a.mp4", seconds))) == round(16000 * seconds)


def test_a_clip_does_not_depend_on_its_neighbours(model):
    films = [film("a.mp4", 1.0, 1), film("b.mp4", 4.5, 2), sources.of_text("c", 3.0)]
    settings = pipeline.Settings(text="dog", **FAST)
    together = [r[0].audio for r in model.generate(films, settings)]
    for source, shared in zip(films, together):
        assert mmaudio_goldens.distance(audio(model, source, text="dog"), shared) <= LIMIT


def test_everything_that_is_said_is_heard(model):
    source = film("a.mp4", 1.5)
    plain = audio(model, source)
    others = {
        "text": audio(model, source, text="dog"),
        "negative": audio(model, source, negative_text="dog"),
        "seed": audio(model, source, seed=1),
        "guidance": audio(model, source, guidance=1),
        "video": audio(model, film("a.mp4", 1.5, seed=1)),
        "no video": audio(model, sources.of_text("a", 1.5)),
    }
    for what, other in others.items():
        assert np.abs(other - plain).max() > 1e-3, what
    np.testing.assert_array_equal(plain, audio(model, source))


@pytest.mark.slow  # another program
def test_conditions_made_at_every_step_are_the_kept_ones(model, monkeypatch):
    source = film("a.mp4", 4.0)
    kept = audio(model, source, text="dog")
    monkeypatch.setattr(solve, "KEPT_BYTES", 0)
    anew = tiny_mmaudio.make()
    assert mmaudio_goldens.distance(audio(anew, source, text="dog"), kept) <= LIMIT


def test_samples_are_those_of_their_numbers(model):
    source = film("a.mp4", 1.0)
    (both,) = model.generate([source], pipeline.Settings(num_samples=2, **FAST))
    assert [r.sample for r in both] == [0, 1]
    assert mmaudio_goldens.distance(both[0].audio, audio(model, source)) <= LIMIT
    assert np.abs(both[0].audio - both[1].audio).max() > 1e-3


def test_videos_are_read_in_both_ways(model, tmp_path):
    path = media_files.write(tmp_path / "a.mp4", audio=False)
    ours = model.read(path, pipeline.Settings())
    assert len(ours.clip_frames) == int(np.ceil(8 * ours.duration_s - 1e-6))
    begin = model.read(path, pipeline.Settings(duration=0.7))
    assert begin.duration_s == 0.7 and len(begin.sync_frames) == 18
    official = model.read(path, pipeline.Settings(preset="official"))
    lengths = rates_lib.RATES["16k"].lengths(official.duration_s)
    assert len(official.clip_frames) == lengths.clip
    made = audio(model, official, preset="official")
    assert len(made) == lengths.samples


def test_a_network_without_statistics_is_refused(model):
    flow_state = dataclasses.replace(model.flow, state=dict(model.flow.state))
    flow_state.state["latent_std"] = jnp.full((1, 1, 20), jnp.nan)
    with pytest.raises(ValueError, match="knows no statistics"):
        pipeline.MMAudio(
            flow=flow_state, autoencoder=model.autoencoder, vocoder=None, rates=tiny_mmaudio.RATES
        )


def test_what_is_missing_is_named():
    bare = tiny_mmaudio.make(clip=None, sync=None, tokenizer=None)
    with pytest.raises(ValueError, match="text needs CLIP's network"):
        bare.check(pipeline.Settings(text="dog"))
    with pytest.raises(ValueError, match="needs CLIP and Synchformer"):
        bare.read(Path("a.mp4"), pipeline.Settings())
    (result,) = bare.generate([sources.of_text("a", 1.0)], pipeline.Settings(**FAST))
    assert len(result[0].audio) == 16000


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"preset": "old"}, "preset is 'old'"),
        ({"sampler": "ddim"}, "expected one of euler, heun"),
        ({"text": None}, "text is None"),
        ({"duration": 0.1}, "of at least 0.64"),
        ({"guidance": -1}, "guidance is -1"),
    ],
)
def test_wrong_settings_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        pipeline.Settings(**wrong)
