"""Audio that is there already, for MMAudio: a span made anew, and the whole of it varied."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_mmaudio

from foley_jax.diffusion import flow, inpainting
from foley_jax.inference import text_foley
from foley_jax.media import audio as audio_io
from foley_jax.mmaudio.sampling import pipeline
from tests.media import media_files

pytestmark = pytest.mark.usefixtures("quick_compilation")
RATE = 16000


@pytest.fixture(scope="module")
def foley(quick_compilation):
    return text_foley.TextFoley(tiny_mmaudio.make(), "tiny")


@pytest.fixture
def old(tmp_path):
    """A file of 2.5 s, and its samples as 16 bits keep them."""
    path = tmp_path / "old.wav"
    rng = np.random.default_rng(0)
    audio_io.write_wav(path, (0.1 * rng.standard_normal(40000)).astype(np.float32), RATE)
    return path, audio_io.load(path, RATE)


@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize("steps", [1, 4, 25])
def test_the_known_part_ends_as_it_is_and_is_seen_on_its_path(method, steps):
    known, noise = jax.random.normal(jax.random.key(0), (2, 1, 6))
    is_known, seen = jnp.arange(6)[None] < 3, []

    def velocity(x, t):
        jax.debug.callback(lambda x, t: seen.append((float(t[0]), np.array(x))), x, t)
        return 0.1 * x

    keeping = inpainting.keeping_flow(velocity, noise, known, is_known)
    made, free = (
        flow.sample(v, noise, num_steps=steps, method=method) for v in (keeping, velocity)
    )
    np.testing.assert_allclose(made[0, :3], known[0, :3], atol=1e-5)
    np.testing.assert_allclose(made[0, 3:], free[0, 3:], rtol=1e-5)  # a velocity of each alone
    t, x = seen[-1 - len(seen) // 2]  # the last of the kept walk
    want = flow.on_path(noise, known, jnp.float32([t]))
    np.testing.assert_allclose(x[0, :3], want[0, :3], atol=1e-5)


def test_a_velocity_that_knows_the_data_may_begin_anywhere():
    data, noise = jax.random.normal(jax.random.key(1), (2, 1, 6))
    x = flow.on_path(noise, data, jnp.float32([0.6]))
    made = flow.sample(lambda x, t: flow.velocity(noise, data), x, num_steps=4, start=0.6)
    np.testing.assert_allclose(made, data, atol=1e-5)


@pytest.mark.slow  # programs of their own
def test_outside_the_span_every_sample_is_kept(foley, old):
    path, old_L = old
    options = {"text": "dog", "steps": 3, "audio": path}
    made = foley(regenerate=(1.0, 1.5), **options).audio
    assert len(made) == 40000  # as long as the audio
    np.testing.assert_array_equal(made[:RATE], old_L[:RATE])
    np.testing.assert_array_equal(made[24000:], old_L[24000:])
    other = foley(regenerate=(1.0, 1.5), seed=2, **options).audio
    assert np.abs(made[RATE:24000] - old_L[RATE:24000]).max() > 1e-3
    assert np.abs(made[RATE:24000] - other[RATE:24000]).max() > 1e-3
    longer = foley(regenerate=(2.5, 4.0), **options).audio  # windows of 1.92 s
    assert len(longer) == 64000 and np.abs(longer[40000:]).max() > 1e-3
    np.testing.assert_array_equal(longer[:40000], old_L)


@pytest.mark.slow
def test_the_network_sees_what_is_kept(foley, old, monkeypatch):
    """The latents outside the span are those of the audio, to rounding; within they follow it."""
    path, old_L = old
    spec = foley.model.window
    found = []
    usual = foley.model._parts
    monkeypatch.setattr(
        foley.model, "_parts", lambda z, *args: found.append(np.asarray(z)) or usual(z, *args)
    )
    foley(text="dog", steps=3, audio=path, regenerate=(1.0, 1.5))
    source = foley.read(None, pipeline.Settings(text="dog", duration=2.5))
    whole = foley.model._known(
        pipeline.editing.Kept(old_L, 1.0, 1.5), len(found[0]) // spec.num_columns
    )
    count = len(whole.known_W)
    assert source.duration_s == 2.5 and 0 < whole.known_W.sum() < count
    z_WC, want_WC = found[0][:count], whole.z_HWC[0]
    scale = np.abs(want_WC).max()
    np.testing.assert_allclose(z_WC[whole.known_W], want_WC[whole.known_W], atol=1e-4 * scale)
    assert np.abs(z_WC - want_WC)[: round(2.5 / spec.column_s)][~whole.known_W[:78]].max() > 0.1


@pytest.mark.slow
def test_less_strength_is_nearer_to_the_old_audio(foley, old):
    path, old_L = old

    def mel(vary, seed):
        more = {"audio": path} if vary < 1 else {}
        return foley(text="dog", steps=10, vary=vary, seed=seed, duration=2.5, **more).mel_FT

    near, far = ([mel(vary, seed) for seed in (1, 2)] for vary in (0.1, 1))
    assert 0 < np.abs(near[0] - near[1]).mean() < np.abs(far[0] - far[1]).mean()


def test_what_cannot_be_edited_is_told(foley, tmp_path):
    with pytest.raises(ValueError, match=r"need the file of their audio \(audio"):
        foley(text="dog", vary=0.5)
    with pytest.raises(ValueError, match="give one of them"):
        foley(text="dog", vary=0.5, regenerate=(0, 1), audio="a.wav", duration=1.0)
    for fields, told in (
        ({"vary": 0.0}, "vary is 0.0, expected a finite number above 0"),
        ({"vary": 1.5}, "of at most 1"),
        ({"vary": 0.5, "steps": 1}, "needs at least 2 steps"),
        ({"vary": 0.5, "preset": "official"}, "'official' makes all anew"),
    ):
        with pytest.raises(ValueError, match=told):
            pipeline.Settings(**fields)
    video = media_files.write(tmp_path / "a.mp4", audio=False)
    with pytest.raises(ValueError, match="no audio track"):
        foley(video, regenerate=(0.1, 0.2))
    student = tiny_mmaudio.make(student_steps=4)
    with pytest.raises(ValueError, match="begins with noise alone"):
        student.check(pipeline.Settings(steps=4, vary=0.5))


def test_only_what_does_something_is_recorded(foley):
    usual = pipeline.Settings()
    assert "vary" not in usual.record() and pipeline.Settings(vary=0.5).record()["vary"] == 0.5
    job = text_foley.Job(foley, usual, True, {}, (1.0, 2.0))
    assert job.settings()["regenerate"] == [1.0, 2.0]
    with pytest.raises(ValueError, match="there are none"):
        text_foley.Job(foley, usual, False, {}, (1.0, 2.0))
